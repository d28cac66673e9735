package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	legacy "github.com/golang/protobuf/proto"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health/grpc_health_v1" // registers the service of Check
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"patchserve"
	"patchserve/pb"
)

type testCase struct {
	Name     string
	RPC      string
	Request  any
	Steps    []step
	TimeoutS float64 `json:"timeout_s"`
	Token    *string
}

type step struct {
	Send       any
	Times      int
	Await      int
	Call       *testCase
	UntilLoads int `json:"until_loads"`
	Cancel     bool
}

type outcome struct {
	Name      string            `json:"name,omitempty"`
	Code      string            `json:"code"`
	Error     map[string]any    `json:"error"`
	Responses []json.RawMessage `json:"responses"`
	Calls     []outcome         `json:"calls"`
}

// conformance is the conformance runner: it runs test cases and prints their outcomes. tests/conformance/README.md
// defines the format.
func conformance(ctx context.Context) error {
	text, err := os.ReadFile(*cases)
	if err != nil {
		return err
	}
	var suite struct{ Cases []testCase }
	if err := json.Unmarshal(text, &suite); err != nil {
		return err
	}
	token := options.Token
	options.Token = "" // each call has its own token
	client, err := patchserve.Dial(*server, options)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, tc := range suite.Cases {
		result, err := runCase(ctx, client, tc, token)
		if err != nil {
			return fmt.Errorf("%s: %w", tc.Name, err)
		}
		result.Name = tc.Name
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			return err
		}
	}
	return nil
}

func runCase(ctx context.Context, client *patchserve.Client, tc testCase, token string) (outcome, error) {
	if tc.Token != nil {
		token = *tc.Token
	}
	if token != "" {
		ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
	}
	timeout := time.Minute
	if tc.TimeoutS != 0 {
		timeout = time.Duration(tc.TimeoutS * float64(time.Second))
	}
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if tc.Steps == nil && tc.Request != nil {
		tc.Steps = []step{{Send: tc.Request}}
	}
	call := open(callCtx, client.Conn, tc.RPC)
	nested := []outcome{}
	for _, step := range tc.Steps {
		switch {
		case step.Send != nil:
			if err := call.send(step); err != nil {
				return outcome{}, err
			}
		case step.Await != 0:
			call.until(func() bool { return len(call.responses) >= step.Await })
		case step.Call != nil:
			result, err := runCase(ctx, client, *step.Call, token)
			if err != nil {
				return outcome{}, err
			}
			nested = append(nested, result)
		case step.UntilLoads != 0:
			for count := 0; count < step.UntilLoads; {
				loads, err := client.ListLoads(ctx, &pb.ListLoadsRequest{})
				if err != nil {
					return outcome{}, err
				}
				count = len(loads.Loads)
			}
		case step.Cancel:
			cancel()
		}
	}
	call.close()
	call.until(func() bool { return false })
	code := codeName(patchserve.ErrorOf(call.err).Code)
	return outcome{Code: code, Error: errorFields(call.err), Responses: call.responses, Calls: nested}, nil
}

// genericCall is a call of any method, as a stream of requests and a stream of responses: in HTTP/2, every call is tc.
type genericCall struct {
	stream    grpc.ClientStream // nil if it could not be opened
	input     protoreflect.MessageDescriptor
	mutex     sync.Mutex
	changed   *sync.Cond
	responses []json.RawMessage
	ended     bool
	err       error
}

func open(ctx context.Context, conn *grpc.ClientConn, rpc string) *genericCall {
	service := protoreflect.FullName("patchserve.v1.PatchCoreService")
	if rpc == "Check" {
		service = "grpc.health.v1.Health"
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
	if err != nil {
		panic(err)
	}
	method := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(rpc))
	call := &genericCall{input: method.Input(), responses: []json.RawMessage{}}
	call.changed = sync.NewCond(&call.mutex)
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	call.stream, call.err = conn.NewStream(ctx, description, fmt.Sprintf("/%s/%s", service, rpc))
	call.ended = call.err != nil
	if !call.ended {
		go call.read(method.Output())
	}
	return call
}

func (c *genericCall) read(output protoreflect.MessageDescriptor) {
	for {
		response := newMessage(output)
		err := c.stream.RecvMsg(legacy.MessageV1(response))
		var text json.RawMessage
		if err == nil {
			text, err = protojson.Marshal(response)
		}
		c.mutex.Lock()
		if err == nil {
			c.responses = append(c.responses, text)
		} else {
			c.ended = true
			if !errors.Is(err, io.EOF) {
				c.err = err
			}
		}
		c.changed.Broadcast()
		c.mutex.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *genericCall) send(step step) error {
	text, err := json.Marshal(withImages(step.Send))
	if err != nil {
		return err
	}
	request := newMessage(c.input)
	if err := protojson.Unmarshal(text, request); err != nil {
		return err
	}
	for time := 0; c.stream != nil && (time == 0 || time < step.Times); time++ {
		if c.stream.SendMsg(legacy.MessageV1(request)) != nil { // the call has ended: read gets the reason
			break
		}
	}
	return nil
}

func (c *genericCall) close() {
	if c.stream != nil {
		_ = c.stream.CloseSend()
	}
}

func (c *genericCall) until(reached func() bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for !c.ended && !reached() {
		c.changed.Wait()
	}
}

func newMessage(kind protoreflect.MessageDescriptor) proto.Message {
	found, err := protoregistry.GlobalTypes.FindMessageByName(kind.FullName())
	if err != nil {
		panic(err)
	}
	return found.New().Interface()
}

// withImages returns the same value, with "@NAME" replaced by the Base64 content of that image.
func withImages(value any) any {
	switch value := value.(type) {
	case map[string]any:
		result := map[string]any{}
		for key, item := range value {
			result[key] = withImages(item)
		}
		return result
	case []any:
		result := make([]any, len(value))
		for index, item := range value {
			result[index] = withImages(item)
		}
		return result
	case string:
		if strings.HasPrefix(value, "@") {
			content, err := os.ReadFile(filepath.Join(*images, value[1:]))
			if err != nil {
				panic(err)
			}
			return base64.StdEncoding.EncodeToString(content)
		}
	}
	return value
}

func errorFields(err error) map[string]any {
	if err == nil {
		return nil
	}
	failed := patchserve.ErrorOf(err)
	fields, preconditions := []any{}, []any{}
	for _, violation := range failed.FieldViolations {
		fields = append(fields, map[string]string{"field": violation.Field})
	}
	for _, violation := range failed.PreconditionViolations {
		preconditions = append(preconditions, map[string]string{"type": violation.Type, "subject": violation.Subject})
	}
	result := map[string]any{
		"reason": failed.Reason, "field_violations": fields, "precondition_violations": preconditions,
		"resource_name": failed.ResourceName, "retry_after_s": nil,
	}
	if failed.RetryAfter != nil {
		result["retry_after_s"] = failed.RetryAfter.Seconds()
	}
	return result
}

// codeName is the name in the documentation of the contract: NOT_FOUND for Go's NotFound.
func codeName(number codes.Code) string {
	return code.Code(number).String()
}
