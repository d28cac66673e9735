package patchserve

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patchserve/pb"
)

const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 2 * time.Second
)

// Stream inspects a stream of frames. next returns the frames, and io.EOF after the last one. It is called from another
// goroutine, as fast as the server accepts frames. handle gets every message of the server: ready, one result for each
// frame (also for failed ones), and notices. If next or handle returns an error, the stream ends with this error.
func (c *Client) Stream(
	ctx context.Context, config *pb.StreamConfig, next func() (*pb.Frame, error), handle func(*pb.InferStreamResponse) error,
) error {
	return c.ResumeStream(ctx, 0, config, next, handle)
}

// ResumeStream is like Stream, and connects again if the connection is lost or the server drains. Frames without a
// result are sent again. It stops after so long without a result. Each connection has its own ready.
func (c *Client) ResumeStream(
	ctx context.Context, resumeFor time.Duration, config *pb.StreamConfig,
	next func() (*pb.Frame, error), handle func(*pb.InferStreamResponse) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newFrameStream(c.own, resumeFor, config, next, handle)
	for {
		err, isFinal := s.connect(ctx, c)
		if isFinal {
			return err
		}
		delay, ok := s.delayAfter(ctx, err)
		if !ok {
			return err
		}
		if !sleep(ctx, delay) {
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// placed is a frame and its place in the whole stream. The server counts the frames of one connection.
type placed struct {
	place uint64
	frame *pb.Frame
}

// frameStream decides what each connection sends, and when there is another one.
type frameStream struct {
	own       *ownChanges
	resumeFor time.Duration
	config    *pb.StreamConfig
	id        string
	next      func() (*pb.Frame, error)
	handle    func(*pb.InferStreamResponse) error
	pinned    string // made by this client a moment ago; asked for until a connection is open

	mutex      sync.Mutex // guards the fields below
	changed    *sync.Cond
	connection int // 0: none is open
	count      int // of connections
	cancel     context.CancelFunc
	unsent     []placed
	unanswered map[uint64]placed // by sequence on this connection
	sequence   uint64
	read       uint64 // frames
	isReading  bool   // one goroutine at a time, which may outlive its connection
	ended      bool   // no frame follows
	nextErr    error
	lostAt     time.Time
	delay      time.Duration
}

func newFrameStream(own *ownChanges, resumeFor time.Duration, config *pb.StreamConfig,
	next func() (*pb.Frame, error), handle func(*pb.InferStreamResponse) error) *frameStream {
	s := &frameStream{own: own, resumeFor: resumeFor, config: config, next: next, handle: handle,
		id: config.GetReferenceId(), unanswered: map[uint64]placed{}, delay: firstDelay}
	if s.id == "" {
		s.id = defaultID
	}
	if config.GetExpectedRevision() == "" {
		s.pinned = own.revisionOf(s.id)
	}
	s.changed = sync.NewCond(&s.mutex)
	return s
}

// connect runs one connection. isFinal: the stream has ended, with this error or none.
func (s *frameStream) connect(ctx context.Context, c *Client) (failed error, isFinal bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.InferStream(withReference(ctx, s.id))
	if err != nil {
		return err, false
	}
	connection, config := s.open(cancel)
	defer s.close()
	go s.write(stream, connection, config)
	for {
		response, err := stream.Recv()
		if thrown := s.thrown(); thrown != nil {
			return thrown, true
		}
		if errors.Is(err, io.EOF) {
			return nil, true
		}
		if err != nil && s.hasAllResults() {
			return nil, true
		}
		if err != nil {
			return err, false
		}
		s.receive(response)
		if err := s.handle(response); err != nil {
			return err, true
		}
	}
}

// open begins a connection, with the frames that have no result.
func (s *frameStream) open(cancel context.CancelFunc) (connection int, config *pb.StreamConfig) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	again := make([]placed, 0, len(s.unanswered)+len(s.unsent))
	for sequence := uint64(0); sequence < s.sequence; sequence++ {
		if frame, ok := s.unanswered[sequence]; ok {
			again = append(again, frame)
		}
	}
	s.unsent, s.unanswered, s.sequence = append(again, s.unsent...), map[uint64]placed{}, 0
	s.count++
	s.connection, s.cancel = s.count, cancel
	return s.connection, pinned(s.config, s.pinned).(*pb.StreamConfig)
}

func (s *frameStream) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.connection = 0
	s.changed.Broadcast()
}

// hasAllResults says whether nothing is missing although the connection was lost.
func (s *frameStream) hasAllResults() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.resumeFor > 0 && s.ended && len(s.unsent)+len(s.unanswered) == 0
}

func (s *frameStream) thrown() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.nextErr
}

func (s *frameStream) write(stream pb.PatchCoreService_InferStreamClient, connection int, config *pb.StreamConfig) {
	message := &pb.InferStreamRequest{Payload: &pb.InferStreamRequest_Config{Config: config}}
	for stream.Send(message) == nil { // otherwise the call has ended: Recv returns the reason
		frame := s.take(connection)
		if frame == nil {
			_ = stream.CloseSend()
			return
		}
		message = &pb.InferStreamRequest{Payload: &pb.InferStreamRequest_Frame{Frame: frame}}
	}
}

// take waits for the next frame of a connection. nil: it has none, or is not open any more.
func (s *frameStream) take(connection int) *pb.Frame {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for s.connection == connection {
		switch {
		case len(s.unsent) > 0:
			taken := s.unsent[0]
			s.unsent = s.unsent[1:]
			s.unanswered[s.sequence] = taken
			s.sequence++
			return taken.frame
		case s.ended:
			return nil
		case s.isReading:
			s.changed.Wait()
		default:
			s.readFrame()
		}
	}
	return nil
}

// readFrame is called with the lock, and waits for a frame without it.
func (s *frameStream) readFrame() {
	s.isReading = true
	s.mutex.Unlock()
	frame, err := s.next()
	s.mutex.Lock()
	s.isReading = false
	switch {
	case errors.Is(err, io.EOF):
		s.ended = true
	case err != nil:
		s.ended, s.nextErr = true, err
		s.cancel()
	default:
		s.unsent = append(s.unsent, placed{s.read, frame})
		s.read++
	}
	s.changed.Broadcast()
}

// receive gives a result its place in the whole stream.
func (s *frameStream) receive(response *pb.InferStreamResponse) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if response.GetReady() != nil {
		s.pinned = ""
		if len(s.unsent)+len(s.unanswered) == 0 {
			s.progress()
		}
	}
	if result := response.GetResult(); result != nil {
		s.progress()
		if answered, ok := s.unanswered[result.Sequence]; ok {
			delete(s.unanswered, result.Sequence)
			result.Sequence = answered.place
		}
	}
}

func (s *frameStream) progress() {
	s.lostAt, s.delay = time.Time{}, firstDelay
}

// delayAfter returns how long to wait before the next connection. false: the error is final, or the time has passed.
func (s *frameStream) delayAfter(ctx context.Context, err error) (time.Duration, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	failed := ErrorOf(err)
	if s.pinned != "" && failed.Reason == "REVISION_MISMATCH" {
		s.own.forget(s.id) // somebody else has changed it since
		s.pinned = ""
		return 0, true
	}
	if s.lostAt.IsZero() {
		s.lostAt = time.Now()
	}
	remaining := s.resumeFor - time.Since(s.lostAt)
	if ctx.Err() != nil || s.resumeFor <= 0 || remaining <= 0 || !isConnectionLoss(failed) {
		return 0, false
	}
	delay := jittered(s.delay)
	if told := failed.RetryAfter; told != nil {
		if *told > remaining {
			return 0, false
		}
		delay = longer(delay, longer(*told, jittered(*told))) // never shorter than the server asks for
	}
	if s.delay *= 2; s.delay > longestDelay {
		s.delay = longestDelay
	}
	if delay > remaining {
		delay = remaining
	}
	return delay, true
}

func longer(one, other time.Duration) time.Duration {
	if one > other {
		return one
	}
	return other
}

// isConnectionLoss says whether another connection may help. A proxy that has lost the server resets the stream; a
// server that stops discards calls unread. Both give no reason.
func isConnectionLoss(failed *Error) bool {
	switch failed.Code {
	case codes.Unavailable:
		return true
	case codes.Canceled, codes.Internal, codes.Unknown:
		return failed.Reason == ""
	}
	return failed.RetryAfter != nil
}
