#include "channel.h"

#include <algorithm>
#include <string_view>
#include <stdexcept>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "files.h"
#include "service_config.h"

namespace patchserve {
namespace {

constexpr int MAX_MESSAGE_BYTES = 64 << 20;

// dns:///HOST:PORT stands for all addresses of a name: calls take turns on those that are ready.
constexpr std::string_view ALL_OF_A_NAME = "dns:///";
constexpr std::string_view SPREAD =
    R"("loadBalancingConfig":[{"round_robin":{}}],)"
    R"("healthCheckConfig":{"serviceName":"patchserve.v1.PatchCoreService"})";

std::string host_and_port(const std::string& server) {
    return server.starts_with(ALL_OF_A_NAME) ? server.substr(ALL_OF_A_NAME.size()) : server;
}

std::string service_config(const std::string& server) {
    const std::string shared(SERVICE_CONFIG);
    return server.starts_with(ALL_OF_A_NAME) ? "{" + std::string(SPREAD) + "," + shared.substr(shared.find('{') + 1)
                                             : shared;
}

bool on_this_machine(const std::string& server) {
    const std::string address = host_and_port(server);
    const std::string host = address.substr(0, address.rfind(':'));
    return host == "localhost" || host == "127.0.0.1" || host == "[::1]";
}

std::string pem(const std::string& path) {
    if (path.empty()) {
        return {};
    }
    std::string content = read_file(path);
    if (content.find("-----BEGIN ") == std::string::npos) {  // gRPC would only log this, at the first call
        throw std::invalid_argument(path + " is not a PEM file");
    }
    return content;
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const Options& options) {
    if (options.cert.empty() != options.key.empty()) {
        throw std::invalid_argument("set both cert and key, or neither");
    }
    if (!options.tls && options.ca.empty() && options.cert.empty()) {
        return grpc::InsecureChannelCredentials();
    }
    return grpc::SslCredentials({pem(options.ca), pem(options.key), pem(options.cert)});
}

void check_token(const std::string& server, const Options& options) {
    const bool encrypted = options.tls || !options.ca.empty() || !options.cert.empty();
    if (!options.token.empty() && !encrypted && !on_this_machine(server) && !options.insecure_token) {
        throw std::invalid_argument("the token would be sent unencrypted to " + server +
                                    ": use TLS, or insecure_token");
    }
    const auto is_printable = [](char letter) { return letter > ' ' && letter <= '~'; };
    if (!std::ranges::all_of(options.token, is_printable)) {  // gRPC would abort the process
        throw std::invalid_argument("the token contains an invalid character, such as a line break");
    }
}

}  // namespace

std::shared_ptr<grpc::Channel> open_channel(const std::string& server, const Options& options) {
    const std::string address = host_and_port(server);
    if (address.find(':') == std::string::npos || address.find("//") != std::string::npos) {
        throw std::invalid_argument("the server must be HOST:PORT or dns:///HOST:PORT, not \"" + server + "\"");
    }
    check_token(server, options);
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(MAX_MESSAGE_BYTES);
    arguments.SetMaxReceiveMessageSize(MAX_MESSAGE_BYTES);
    // By default, gRPC uses the proxy of http_proxy even for local ports.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, on_this_machine(server) ? 0 : 1);
    // Detects a lost peer within 80 s during a call. Servers must allow one ping per minute.
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    arguments.SetServiceConfigJSON(service_config(server));
    // gRPC does not retry a request larger than this buffer. Its default, 256 KiB, excludes most images.
    arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, MAX_MESSAGE_BYTES);
    // Reconnects soon after a restart of the server.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
    return grpc::CreateCustomChannel(server, credentials(options), arguments);
}

}  // namespace patchserve
