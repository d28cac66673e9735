#include "patchserve/error.h"

#include <absl/status/status.h>

namespace patchserve {
namespace {

constexpr auto REASON_DOMAIN = "patchserve.v1";

grpc::StatusCode code_of(int number) {
    const bool is_known = number >= grpc::StatusCode::OK && number <= grpc::StatusCode::UNAUTHENTICATED;
    return is_known ? static_cast<grpc::StatusCode>(number) : grpc::StatusCode::UNKNOWN;
}

}  // namespace

Error::Error(const grpc::Status& failed) : std::runtime_error(failed.error_message()), code(failed.error_code()) {
    google::rpc::Status status;
    if (status.ParseFromString(failed.error_details())) {
        read(status);
    }
}

Error::Error(const google::rpc::Status& failed) : std::runtime_error(failed.message()), code(code_of(failed.code())) {
    read(failed);
}

void Error::read(const google::rpc::Status& status) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest request;
    google::rpc::PreconditionFailure precondition;
    google::rpc::ResourceInfo resource;
    google::rpc::RequestInfo id;
    google::rpc::RetryInfo retry;
    for (const auto& detail : status.details()) {
        if (detail.UnpackTo(&info)) {
            if (info.domain() == REASON_DOMAIN) {
                reason = info.reason();
            }
        } else if (detail.UnpackTo(&request)) {
            field_violations.assign(request.field_violations().begin(), request.field_violations().end());
        } else if (detail.UnpackTo(&precondition)) {
            precondition_violations.assign(precondition.violations().begin(), precondition.violations().end());
        } else if (detail.UnpackTo(&resource)) {
            resource_name = resource.resource_name();
        } else if (detail.UnpackTo(&id)) {
            request_id = id.request_id();
        } else if (detail.UnpackTo(&retry)) {
            const auto& delay = retry.retry_delay();
            retry_after = std::chrono::seconds(delay.seconds()) + std::chrono::nanoseconds(delay.nanos());
        }
    }
}

std::string code_name(grpc::StatusCode code) {
    return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));  // both use the same numbers
}

}  // namespace patchserve
