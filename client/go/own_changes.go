package patchserve

import (
	"sync"
	"time"

	"patchserve/pb"
)

// Servers with one store hear of changes within about 3 s; one that is asked for a revision looks it up at once.
const remembered = 10 * time.Second

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

func (o *ownChanges) learn(id string, response any) {
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
