// The connection to a server: address, TLS, and the settings of a gRPC channel.
#pragma once

#include <memory>
#include <string>

#include <grpcpp/channel.h>

#include "patchserve/client.h"

namespace patchserve {

/// Throws std::invalid_argument if the token would be sent unencrypted, or options contradict each other.
std::shared_ptr<grpc::Channel> open_channel(const std::string& server, const Options& options);

}  // namespace patchserve
