// Package patchserve is a client of patchserve, a gRPC server for visual anomaly detection.
//
// A Client has every method of the contract, with contexts for deadlines; this file adds the way to a server, and loads
// and streams that keep to flow control.
package patchserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"patchserve/pb"
)

const maxMessageBytes = 64 << 20

// Options of a connection. The zero value is plain text without a token.
type Options struct {
	TLS               bool   // encryption; implied by the files
	CA                string // a PEM file: who may sign the server's certificate; empty: the well-known authorities
	Cert, Key         string // PEM files: the client's own certificate, for a server that asks for one
	Token             string // the bearer token
	InsecureToken     bool   // send the token unencrypted to another machine, where something else protects the way
	AdditionalOptions []grpc.DialOption
}

// Client is a connection to a server. Safe for concurrent use; close it.
type Client struct {
	pb.PatchCoreServiceClient
	Conn *grpc.ClientConn
}

// Dial prepares a connection to HOST:PORT; the first call opens it.
func Dial(server string, options Options) (*Client, error) {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, fmt.Errorf("a server is named HOST:PORT, not %q: %w", server, err)
	}
	dial := []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes))}
	encrypted := options.TLS || options.CA != "" || options.Cert != ""
	if encrypted {
		config, err := options.config()
		if err != nil {
			return nil, err
		}
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	} else {
		dial = append(dial, grpc.WithInsecure())
	}
	if options.Token != "" {
		ip := net.ParseIP(host)
		here := host == "localhost" || (ip != nil && ip.IsLoopback())
		if !encrypted && !here && !options.InsecureToken {
			return nil, fmt.Errorf("the token would travel to %s unencrypted: use TLS, or InsecureToken", server)
		}
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(options.Token)))
	}
	conn, err := grpc.Dial(server, append(dial, options.AdditionalOptions...)...)
	if err != nil {
		return nil, err
	}
	return &Client{pb.NewPatchCoreServiceClient(conn), conn}, nil
}

// Close ends the connection; calls under way end with Canceled.
func (c *Client) Close() error { return c.Conn.Close() }

func (o Options) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", o.CA)
		}
	}
	if o.Cert != "" {
		own, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// bearer is a token as a plain header. Dial has seen to it that it travels safely.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return false }

// Load builds or extends a reference from images of undamaged items, sent one by one; it returns when it serves. next
// gives the encoded images, and io.EOF after the last.
func (c *Client) Load(
	ctx context.Context, start *pb.LoadReferenceRequest, next func() ([]byte, error),
) (*pb.Reference, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // half of the images must not become the reference
	stream, err := c.LoadReferenceStream(ctx)
	if err != nil {
		return nil, err
	}
	message := &pb.LoadReferenceStreamRequest{Payload: &pb.LoadReferenceStreamRequest_Start{Start: start}}
	for {
		if stream.Send(message) != nil { // the call has ended: CloseAndRecv says why
			break
		}
		image, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		message = &pb.LoadReferenceStreamRequest{Payload: &pb.LoadReferenceStreamRequest_Image{Image: image}}
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetReference(), err
}

// Stream inspects frames as they come. next gives them, and io.EOF after the last; it is called from another goroutine,
// as fast as the server takes frames. handle gets every message of the server: ready, a result for each frame, failed
// ones too, and notices; an error of either ends the stream and is returned.
func (c *Client) Stream(
	ctx context.Context, config *pb.StreamConfig, next func() (*pb.Frame, error), handle func(*pb.InferStreamResponse) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.InferStream(ctx)
	if err != nil {
		return err
	}
	var broken error // what next returned; written before the call is cancelled
	go func() {
		defer stream.CloseSend()
		message := &pb.InferStreamRequest{Payload: &pb.InferStreamRequest_Config{Config: config}}
		for stream.Send(message) == nil {
			frame, err := next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				broken = err
				cancel()
				return
			}
			message = &pb.InferStreamRequest{Payload: &pb.InferStreamRequest_Frame{Frame: frame}}
		}
	}()
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil && broken != nil {
				return broken
			}
			return err
		}
		if err := handle(response); err != nil {
			return err
		}
	}
}
