package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/status"

	"patchserve"
	"patchserve/pb"
)

const (
	ownID       = "soak-go"
	callTimeout = 30 * time.Second
	shortPause  = 20 * time.Millisecond
	loadPause   = 500 * time.Millisecond
	resumeFor   = time.Minute
	maxFailures = 10
)

// count is how many calls of one kind there were.
type count struct {
	OK     int `json:"ok"`
	Failed int `json:"failed"`
}

// counts counts calls by kind. It is safe for concurrent use.
type counts struct {
	mutex    sync.Mutex
	calls    map[string]*count
	failures []string
	started  bool
}

func (c *counts) add(kind string, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err != nil {
		c.calls[kind].Failed++
		text := err.Error()
		if _, ok := status.FromError(err); ok {
			text = describe(patchserve.ErrorOf(err))
		}
		if len(c.failures) < maxFailures {
			c.failures = append(c.failures, kind+": "+text)
		}
		return
	}
	c.calls[kind].OK++
	for _, count := range c.calls {
		if c.started || count.OK == 0 {
			return
		}
	}
	c.started = true
	fmt.Println(`{"started": true}`)
}

// soak is a load generator for tests of a fleet. tests/conformance/README.md says what it does and prints.
func soak() error {
	next, err := files(*images)
	if err != nil {
		return err
	}
	var pictures [][]byte
	for {
		_, image, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		pictures = append(pictures, image)
	}
	if len(pictures) == 0 {
		return fmt.Errorf("there is no image in %s", *images)
	}
	client, err := patchserve.Dial(*server, options)
	if err != nil {
		return err
	}
	defer client.Close()
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return (&soaking{client, pictures, stopped, counts{calls: map[string]*count{}}}).run()
}

// soaking makes calls of each kind until its context ends, or the rounds are done.
type soaking struct {
	client   *patchserve.Client
	pictures [][]byte
	stopped  context.Context
	counts   counts
}

func (s *soaking) run() error {
	id := *reference
	kinds := map[string]func(context.Context, []byte) error{
		"Infer": func(ctx context.Context, image []byte) error {
			_, err := s.client.Infer(ctx, &pb.InferRequest{ReferenceId: id, Image: image})
			return err
		},
		"GetReference": func(ctx context.Context, _ []byte) error {
			_, err := s.client.GetReference(ctx, &pb.GetReferenceRequest{ReferenceId: id})
			return err
		},
		"ListReferences": func(ctx context.Context, _ []byte) error {
			_, err := s.client.ListReferences(ctx, &pb.ListReferencesRequest{})
			return err
		},
		"GetServerInfo": func(ctx context.Context, _ []byte) error {
			_, err := s.client.GetServerInfo(ctx, &pb.GetServerInfoRequest{})
			return err
		},
		"LoadReference": s.load,
	}
	for kind := range kinds {
		s.counts.calls[kind] = &count{}
	}
	s.counts.calls["InferStream"] = &count{}
	var group sync.WaitGroup
	for kind, call := range kinds {
		group.Add(1)
		go func(kind string, call func(context.Context, []byte) error) {
			defer group.Done()
			s.repeat(kind, call)
		}(kind, call)
	}
	s.stream(id)
	group.Wait()
	failures := append([]string{}, s.counts.failures...)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"language": "go", "calls": s.counts.calls, "failures": failures})
}

func (s *soaking) repeat(kind string, call func(context.Context, []byte) error) {
	pause := shortPause
	if kind == "LoadReference" && *rounds == math.MaxInt {
		pause = loadPause
	}
	for round := 0; round < *rounds && s.stopped.Err() == nil; round++ {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		s.counts.add(kind, call(ctx, s.picture(round)))
		cancel()
		s.wait(pause)
	}
}

func (s *soaking) picture(round int) []byte { return s.pictures[round%len(s.pictures)] }

func (s *soaking) wait(pause time.Duration) {
	select {
	case <-s.stopped.Done():
	case <-time.After(pause):
	}
}

func (s *soaking) load(ctx context.Context, image []byte) error {
	loaded, err := s.client.LoadReference(ctx, &pb.LoadReferenceRequest{ReferenceId: ownID, Images: [][]byte{image}})
	if err != nil {
		return err
	}
	found, err := s.client.Infer(ctx, &pb.InferRequest{ReferenceId: ownID, Image: image})
	if err == nil && found.ReferenceRevision != loaded.Reference.Revision {
		return fmt.Errorf("%s answered, not %s", found.ReferenceRevision, loaded.Reference.Revision)
	}
	return err
}

func (s *soaking) stream(id string) {
	sent, expected := 0, 0
	next := func() (*pb.Frame, error) {
		if sent > 0 {
			s.wait(shortPause)
		}
		if sent >= *rounds || s.stopped.Err() != nil {
			return nil, io.EOF
		}
		sent++
		return &pb.Frame{FrameId: strconv.Itoa(sent - 1), Image: s.picture(sent - 1)}, nil
	}
	handle := func(message *pb.InferStreamResponse) error {
		result := message.GetResult()
		if result == nil {
			return nil
		}
		var wrong error
		if result.FrameId != strconv.Itoa(expected) || result.Sequence != uint64(expected) || result.GetResponse() == nil {
			wrong = fmt.Errorf("frame %s as %d, %v, for %d", result.FrameId, result.Sequence, result.GetError(), expected)
		}
		s.counts.add("InferStream", wrong)
		expected++
		return nil
	}
	config := &pb.StreamConfig{ReferenceId: id}
	err := s.client.ResumeStream(context.Background(), resumeFor, config, next, handle)
	if err == nil && sent != expected {
		err = fmt.Errorf("%d results for %d frames", expected, sent)
	}
	if err != nil {
		s.counts.add("InferStream", err)
	}
}
