package patchserve

import (
	"context"
	_ "embed" // for the service config
	"encoding/json"
	"math/rand"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // asks servers whether they are ready, as the service config says
	"google.golang.org/grpc/metadata"
)

const (
	// How long the server wants us to wait, as gRPC says it.
	pushbackHeader = "grpc-retry-pushback-ms"
	// For an address with several servers: calls take turns on those that are ready.
	spread = `"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":"patchserve.v1.PatchCoreService"}`
)

//go:embed pb/service_config.json
var serviceConfig string

// dialConfig is the service config for an address. dns:///HOST:PORT stands for all addresses of that name.
func dialConfig(server string) string {
	if strings.HasPrefix(server, "dns:///") {
		return "{" + spread + "," + strings.TrimPrefix(strings.TrimSpace(serviceConfig), "{")
	}
	return serviceConfig
}

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
