/** A client for patchserve, a gRPC server for visual anomaly detection. The messages are in patchserve.v1. */
package patchserve.client;
