package patchserve

import (
	"context"
	_ "embed" // for the service config
	"encoding/json"
	"math/rand"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // asks servers whether they are ready, as the service config says
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"patchserve/pb"
)

const (
	// Names the reference of a call, so that a balancer can send it to a server that has it in memory.
	referenceHeader = "x-patchserve-reference"
	defaultID       = "default"
	// Servers with one store hear of changes within about 3 s; one that is asked for a revision looks it up at once.
	remembered = 10 * time.Second
	// How long the server wants us to wait, as gRPC says it.
	pushbackHeader = "grpc-retry-pushback-ms"
	// For an address with several servers: calls take turns on those that are ready.
	spread = `"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":"patchserve.v1.PatchCoreService"}`
)

// The server rejects every other id.
var referenceID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

//go:embed pb/service_config.json
var serviceConfig string

// policy is what the service config says about repeated calls. grpc-go reads it by itself from version 1.40 on; older
// versions do so only in a special environment, so an interceptor does it.
type policy struct {
	methods    map[string]bool
	attempts   int
	first, max time.Duration
	growth     float64
}

func parsedPolicy(text string) policy {
	var config struct {
		MethodConfig []struct {
			Name        []struct{ Service, Method string }
			RetryPolicy struct {
				MaxAttempts                int
				InitialBackoff, MaxBackoff string
				BackoffMultiplier          float64
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		panic(err) // the file is part of the program
	}
	method := config.MethodConfig[0]
	first, _ := time.ParseDuration(method.RetryPolicy.InitialBackoff)
	max, _ := time.ParseDuration(method.RetryPolicy.MaxBackoff)
	found := policy{map[string]bool{}, method.RetryPolicy.MaxAttempts, first, max, method.RetryPolicy.BackoffMultiplier}
	for _, name := range method.Name {
		found.methods["/"+name.Service+"/"+name.Method] = true
	}
	return found
}

// repeat calls until it succeeds, the error is another one than UNAVAILABLE, or the attempts or the time have passed.
func (p policy) repeat(ctx context.Context, method string, call func(...grpc.CallOption) error) error {
	if !p.methods[method] {
		return call()
	}
	pause := p.first
	for attempt := 1; ; attempt++ {
		var trailer metadata.MD
		err := call(grpc.Trailer(&trailer))
		failed := ErrorOf(err)
		if err == nil || failed.Code != codes.Unavailable || attempt == p.attempts {
			return err
		}
		wait := jittered(pause)
		if failed.RetryAfter != nil {
			wait = *failed.RetryAfter
		}
		if told := trailer.Get(pushbackHeader); len(told) > 0 {
			milliseconds, notNumber := strconv.Atoi(told[0])
			if notNumber != nil || milliseconds < 0 {
				return err // do not try again
			}
			wait = time.Duration(milliseconds) * time.Millisecond
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return err
		}
		if !sleep(ctx, wait) {
			return err
		}
		if pause = time.Duration(float64(pause) * p.growth); pause > p.max {
			pause = p.max
		}
	}
}

func jittered(pause time.Duration) time.Duration {
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}

// sleep returns false if the context has ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// dialConfig is the service config for an address. dns:///HOST:PORT stands for all addresses of that name.
func dialConfig(server string) string {
	if strings.HasPrefix(server, "dns:///") {
		return "{" + spread + "," + strings.TrimPrefix(strings.TrimSpace(serviceConfig), "{")
	}
	return serviceConfig
}

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

// ownChanges knows which revision each reference has that this client has changed a moment ago, so that it finds it on
// every server.
type ownChanges struct {
	mutex   sync.Mutex
	changes map[string]change
}

type change struct {
	revision string
	at       time.Time
}

func (o *ownChanges) note(reference *pb.Reference) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for id, known := range o.changes {
		if time.Since(known.at) >= remembered {
			delete(o.changes, id)
		}
	}
	o.changes[reference.GetReferenceId()] = change{reference.GetRevision(), time.Now()}
}

// revisionOf returns the revision to ask for; empty if this client has changed nothing.
func (o *ownChanges) revisionOf(id string) string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if known, ok := o.changes[id]; ok && time.Since(known.at) < remembered {
		return known.revision
	}
	return ""
}

func (o *ownChanges) forget(id string) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	delete(o.changes, id)
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
			own.learn(id, request, response)
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

// pinned returns the request with this revision, if the caller names none and the method takes one.
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

func (o *ownChanges) learn(id string, request, response any) {
	switch answer := response.(type) {
	case *pb.LoadReferenceResponse:
		o.note(answer.GetReference())
	case *pb.TuneReferenceResponse:
		o.note(answer.GetReference())
	case *pb.RestoreReferenceResponse:
		o.note(answer.GetReference())
	case *pb.DeleteReferenceResponse:
		o.forget(id)
	}
}
