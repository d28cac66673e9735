// What a server says of a failed call, or of a failed frame of a stream.
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
    /// Of a failed call, with the details that its trailers carry.
    explicit Error(const grpc::Status& failed);
    /// Of a frame: FrameResult.error.
    explicit Error(const google::rpc::Status& failed);

    grpc::StatusCode code;
    /// The server's own name for the case; empty where it did not say.
    std::string reason;
    std::vector<google::rpc::BadRequest::FieldViolation> field_violations;
    std::vector<google::rpc::PreconditionFailure::Violation> precondition_violations;
    std::string resource_name;
    /// Finds an INTERNAL error in the server's log.
    std::string request_id;
    /// When trying again makes sense; none where the server does not say.
    std::optional<std::chrono::duration<double>> retry_after;

private:
    void read(const google::rpc::Status& status);
};

/// The name that the contract's pages use, such as "NOT_FOUND".
std::string code_name(grpc::StatusCode code);

}  // namespace patchserve
