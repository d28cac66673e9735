package patchserve

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "patchserve.v1"

// Error is a failed call, or a failed frame of a stream.
type Error struct {
	Code                   codes.Code
	Message                string
	Reason                 string // the server's name for the error; empty if the error does not come from patchserve
	FieldViolations        []*errdetails.BadRequest_FieldViolation
	PreconditionViolations []*errdetails.PreconditionFailure_Violation
	ResourceName           string
	RequestID              string         // the id of an INTERNAL error in the server's log
	RetryAfter             *time.Duration // when to retry; nil if the server does not say
}

// ErrorOf converts the error of a call. An error that does not come from gRPC has the code Unknown.
func ErrorOf(err error) *Error {
	return errorOf(status.Convert(err))
}

// ErrorOfFrame converts the error of a frame.
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
