// Package patchserve is a client for patchserve, a gRPC server for visual anomaly detection.
//
// A Client has every method of the contract, with contexts for deadlines. This file adds the connection, and loads and
// streams with flow control.
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
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"patchserve/pb"
)

const maxMessageBytes = 64 << 20

// Options of a connection. The zero value means plain text without a token.
type Options struct {
	TLS               bool   // use TLS; CA and Cert imply it
	CA                string // a PEM file: the authorities for the server's certificate; empty: well-known ones
	Cert, Key         string // PEM files: the client's certificate and key, for a server that requires them
	Token             string // the bearer token
	InsecureToken     bool   // allow sending the token unencrypted to another machine, for example inside a VPN
	AdditionalOptions []grpc.DialOption
}

// Client is a connection to a server. It is safe for concurrent use. Close it after use.
//
// Unary calls that are safe to repeat are made once more while a server is UNAVAILABLE, within their deadline. For 10 s
// after this client has changed a reference, its calls ask for its own revision, so that every server of a fleet has it.
type Client struct {
	pb.PatchCoreServiceClient
	Conn *grpc.ClientConn
	own  *ownChanges
}

// Dial prepares a connection to HOST:PORT, or to all servers that a name has, dns:///HOST:PORT; the first call opens it.
func Dial(server string, options Options) (*Client, error) {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(server, "dns:///"))
	if err != nil {
		return nil, fmt.Errorf("the server must be HOST:PORT or dns:///HOST:PORT, not %q: %w", server, err)
	}
	own := &ownChanges{changes: map[string]change{}}
	dial := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithDefaultServiceConfig(dialConfig(server)),
		grpc.WithDisableRetry(), // the interceptor retries
		grpc.WithChainUnaryInterceptor(unary(own)),
		// Reconnect to a restarted server soon.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
		}, MinConnectTimeout: 20 * time.Second}),
	}
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
		isLocal := host == "localhost" || (ip != nil && ip.IsLoopback())
		if !encrypted && !isLocal && !options.InsecureToken {
			return nil, fmt.Errorf("the token would be sent unencrypted to %s: use TLS, or InsecureToken", server)
		}
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(options.Token)))
	}
	conn, err := grpc.Dial(server, append(dial, options.AdditionalOptions...)...)
	if err != nil {
		return nil, err
	}
	return &Client{pb.NewPatchCoreServiceClient(conn), conn, own}, nil
}

// Close ends the connection. Running calls end with Canceled.
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
			return nil, fmt.Errorf("%s contains no certificate", o.CA)
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

// bearer sends the token as a plain header. Dial has checked that the connection is safe for it.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return false }

// Load builds or extends a reference from images of undamaged items, sent one by one and once. It returns when the
// reference is in use. next returns the encoded images, and io.EOF after the last one. LoadReference has all images in
// one message and is retried: use it for small sets that replace a reference.
func (c *Client) Load(
	ctx context.Context, start *pb.LoadReferenceRequest, next func() ([]byte, error),
) (*pb.Reference, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // half of the images must not become the reference
	stream, err := c.LoadReferenceStream(withReference(ctx, start.GetReferenceId()))
	if err != nil {
		return nil, err
	}
	message := &pb.LoadReferenceStreamRequest{Payload: &pb.LoadReferenceStreamRequest_Start{Start: start}}
	for {
		if stream.Send(message) != nil { // the call has ended: CloseAndRecv returns the reason
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
	response, err := stream.CloseAndRecv()
	if err == nil {
		c.own.note(response.GetReference())
	}
	return response.GetReference(), err
}
