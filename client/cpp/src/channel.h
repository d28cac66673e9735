// The way to a server: address, TLS, and the settings of a gRPC channel.
#pragma once

#include <memory>
#include <string>

#include <grpcpp/channel.h>

#include "patchserve/client.h"

namespace patchserve {

/// Throws std::invalid_argument where the token would travel unencrypted, or the options do not go together.
std::shared_ptr<grpc::Channel> open_channel(const std::string& server, const Options& options);

}  // namespace patchserve
