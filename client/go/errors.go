package patchserve

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "patchserve.v1"

// Error is what a server says of a failed call, or of a failed frame of a stream.
type Error struct {
	Code                   codes.Code
	Message                string
	Reason                 string // the server's own name for the case; empty where it did not say
	FieldViolations        []*errdetails.BadRequest_FieldViolation
	PreconditionViolations []*errdetails.PreconditionFailure_Violation
	ResourceName           string
	RequestID              string         // finds an INTERNAL error in the server's log
	RetryAfter             *time.Duration // when trying again makes sense; nil where the server does not say
}

// ErrorOf reads what a call returned. An error that is none of gRPC's has the code Unknown.
func ErrorOf(err error) *Error {
	return errorOf(status.Convert(err))
}

// ErrorOfFrame reads the error of a frame.
func ErrorOfFrame(failed *rpc.Status) *Error {
	return errorOf(status.FromProto(failed))
}

func errorOf(failed *status.Status) *Error {
	result := &Error{Code: failed.Code(), Message: failed.Message()}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				result.Reason = detail.GetReason()
			}
		case *errdetails.BadRequest:
			result.FieldViolations = detail.GetFieldViolations()
		case *errdetails.PreconditionFailure:
			result.PreconditionViolations = detail.GetViolations()
		case *errdetails.ResourceInfo:
			result.ResourceName = detail.GetResourceName()
		case *errdetails.RequestInfo:
			result.RequestID = detail.GetRequestId()
		case *errdetails.RetryInfo:
			delay := time.Duration(detail.GetRetryDelay().GetSeconds())*time.Second +
				time.Duration(detail.GetRetryDelay().GetNanos())
			result.RetryAfter = &delay
		}
	}
	return result
}
