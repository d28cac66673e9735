/** A client of patchserve, a gRPC server for visual anomaly detection. Its messages are in patchserve.v1. */
package patchserve.client;
