// The error of a failed call, or of a failed frame of a stream.
#pragma once

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/support/status.h>

namespace patchserve {

class Error : public std::runtime_error {
public:
    /// From a failed call, with the details in its trailing metadata.
    explicit Error(const grpc::Status& failed);
    /// From a frame: FrameResult.error.
    explicit Error(const google::rpc::Status& failed);

    grpc::StatusCode code;
    /// The server's name for the error; empty if the error does not come from patchserve.
    std::string reason;
    std::vector<google::rpc::BadRequest::FieldViolation> field_violations;
    std::vector<google::rpc::PreconditionFailure::Violation> precondition_violations;
    std::string resource_name;
    /// The id of an INTERNAL error in the server's log.
    std::string request_id;
    /// When to retry; empty if the server does not say.
    std::optional<std::chrono::duration<double>> retry_after;

private:
    void read(const google::rpc::Status& status);
};

/// The name of a code in the documentation of the contract, such as "NOT_FOUND".
std::string code_name(grpc::StatusCode code);

}  // namespace patchserve
