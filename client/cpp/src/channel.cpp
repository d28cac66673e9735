#include "channel.h"

#include <algorithm>
#include <stdexcept>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "files.h"

namespace patchserve {
namespace {

constexpr int MAX_MESSAGE_BYTES = 64 << 20;

bool on_this_machine(const std::string& server) {
    const std::string host = server.substr(0, server.rfind(':'));
    return host == "localhost" || host == "127.0.0.1" || host == "[::1]";
}

std::string pem(const std::string& path) {
    if (path.empty()) {
        return {};
    }
    std::string content = read_file(path);
    if (content.find("-----BEGIN ") == std::string::npos) {  // gRPC would say so to its log only, with the first call
        throw std::invalid_argument(path + " is no PEM file");
    }
    return content;
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const Options& options) {
    if (options.cert.empty() != options.key.empty()) {
        throw std::invalid_argument("cert and key go together: give both or neither");
    }
    if (!options.tls && options.ca.empty() && options.cert.empty()) {
        return grpc::InsecureChannelCredentials();
    }
    return grpc::SslCredentials({pem(options.ca), pem(options.key), pem(options.cert)});
}

void check_token(const std::string& server, const Options& options) {
    const bool encrypted = options.tls || !options.ca.empty() || !options.cert.empty();
    if (!options.token.empty() && !encrypted && !on_this_machine(server) && !options.insecure_token) {
        throw std::invalid_argument("the token would travel to " + server +
                                    " unencrypted: use TLS, or insecure_token where something else protects the way");
    }
    const auto printable = [](char letter) { return letter > ' ' && letter <= '~'; };
    if (!std::ranges::all_of(options.token, printable)) {  // gRPC would end the process
        throw std::invalid_argument("the token has a character that no token has, such as a line's end");
    }
}

}  // namespace

std::shared_ptr<grpc::Channel> open_channel(const std::string& server, const Options& options) {
    if (server.find(':') == std::string::npos || server.find("//") != std::string::npos) {
        throw std::invalid_argument("a server is named HOST:PORT, not \"" + server + "\"");
    }
    check_token(server, options);
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(MAX_MESSAGE_BYTES);
    arguments.SetMaxReceiveMessageSize(MAX_MESSAGE_BYTES);
    // gRPC would ask the proxy of http_proxy for this machine's own ports too.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, on_this_machine(server) ? 0 : 1);
    // A dead peer is noticed within 80 s while a call is under way. Servers must allow a ping a minute.
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    // A server that restarts is found again soon.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
    return grpc::CreateCustomChannel(server, credentials(options), arguments);
}

}  // namespace patchserve
