package patchserve

import (
	"context"
	"regexp"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"patchserve/pb"
)

const (
	// Names the reference of a call, so that a balancer can send it to a server that has it in memory.
	referenceHeader = "x-patchserve-reference"
	defaultID       = "default"
)

// The server rejects every other id.
var referenceID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// withReference adds the header that names the reference.
func withReference(ctx context.Context, id string) context.Context {
	if id == "" {
		id = defaultID
	}
	if !referenceID.MatchString(id) {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, referenceHeader, id)
}

// unary is the interceptor of calls: the header, the revision of an own change, and calls that are made once more.
func unary(own *ownChanges) grpc.UnaryClientInterceptor {
	retries := parsedPolicy(serviceConfig)
	return func(ctx context.Context, method string, request, response any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		id, ctx := addressed(ctx, request)
		call := func(request any) error {
			return retries.repeat(ctx, method, func(more ...grpc.CallOption) error {
				return invoke(ctx, method, request, response, conn, append(append([]grpc.CallOption{}, options...), more...)...)
			})
		}
		sent := pinned(request, own.revisionOf(id))
		err := call(sent)
		if sent != request && ErrorOf(err).Reason == "REVISION_MISMATCH" {
			own.forget(id) // somebody else has changed it since
			err = call(request)
		}
		if err == nil {
			own.learn(id, response)
		}
		return err
	}
}

// addressed returns the reference that a request is about, and the context with the header.
func addressed(ctx context.Context, request any) (string, context.Context) {
	about, ok := request.(interface{ GetReferenceId() string })
	if !ok {
		return "", ctx
	}
	id := about.GetReferenceId()
	if id == "" {
		if _, meansAll := request.(*pb.ListLoadsRequest); meansAll {
			return "", ctx
		}
		id = defaultID
	}
	return id, withReference(ctx, id)
}

// pinned returns the request, or the configuration of a stream, with this revision, if the caller names none and the method takes one.
func pinned(request any, revision string) any {
	known, ok := request.(interface{ GetExpectedRevision() string })
	if !ok || revision == "" || known.GetExpectedRevision() != "" {
		return request
	}
	switch message := request.(type) {
	case *pb.InferRequest:
		copied := proto.Clone(message).(*pb.InferRequest)
		copied.ExpectedRevision = revision
		return copied
	case *pb.StreamConfig:
		copied := proto.Clone(message).(*pb.StreamConfig)
		copied.ExpectedRevision = revision
		return copied
	case *pb.GetReferenceImageRequest:
		copied := proto.Clone(message).(*pb.GetReferenceImageRequest)
		copied.ExpectedRevision = revision
		return copied
	case *pb.TuneReferenceRequest:
		copied := proto.Clone(message).(*pb.TuneReferenceRequest)
		copied.ExpectedRevision = revision
		return copied
	case *pb.RestoreReferenceRequest:
		copied := proto.Clone(message).(*pb.RestoreReferenceRequest)
		copied.ExpectedRevision = revision
		return copied
	case *pb.DeleteReferenceRequest:
		copied := proto.Clone(message).(*pb.DeleteReferenceRequest)
		copied.ExpectedRevision = revision
		return copied
	}
	return request
}
