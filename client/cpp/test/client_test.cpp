// Tests that the cases of tests/conformance cannot describe: callbacks that fail, streams that end while the client
// waits for a frame. tests/conformance/test_cpp_library.py starts the server and sets PATCHSERVE_ADDRESS.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <patchserve/client.h>

using namespace patchserve;
using namespace std::chrono_literals;

namespace {

Client client() { return Client(std::getenv("PATCHSERVE_ADDRESS")); }

struct Broken : std::runtime_error {
    using std::runtime_error::runtime_error;
};

v1::StreamConfig config_of(const std::string& reference) {
    v1::StreamConfig config;
    config.set_reference_id(reference);
    return config;
}

v1::Frame bad_frame() {
    v1::Frame frame;
    frame.set_frame_id("bad");
    frame.set_image("This is not an image.");
    return frame;
}

/// A camera without frames: it waits until a stop is requested.
std::optional<v1::Frame> idle(const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait(lock, stop, [] { return false; });
    return std::nullopt;
}

void ignore(const v1::InferStreamResponse&) {}

grpc::StatusCode code_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.code;
    }
    return grpc::StatusCode::OK;
}

}  // namespace

TEST_CASE("a stream that the server ends does not wait for another frame") {
    grpc::ClientContext context;
    const auto call = [&] { client().stream(context, config_of("nobody"), idle, ignore); };
    CHECK(code_of(call) == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("a deadline ends a stream that waits for a frame") {
    const auto context = within(100ms);
    const auto call = [&] { client().stream(*context, config_of("kept"), idle, ignore); };
    CHECK(code_of(call) == grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_CASE("another thread cancels a stream") {
    grpc::ClientContext context;
    std::promise<void> opened;
    const std::jthread other([&] {
        opened.get_future().wait();
        context.TryCancel();
    });
    const auto call = [&] {
        client().stream(context, config_of("kept"), idle, [&](const v1::InferStreamResponse&) { opened.set_value(); });
    };
    CHECK(code_of(call) == grpc::StatusCode::CANCELLED);
}

TEST_CASE("an exception of the source of frames ends the stream") {
    grpc::ClientContext context;
    const auto next = [](const std::stop_token&) -> std::optional<v1::Frame> { throw Broken("the camera is gone"); };
    CHECK_THROWS_AS(client().stream(context, config_of("kept"), next, ignore), Broken);
}

TEST_CASE("an exception of the handler ends the stream, while it sends and while it waits for a frame") {
    grpc::ClientContext waiting, sending;
    const auto handle = [](const v1::InferStreamResponse&) { throw Broken("the disk is full"); };
    const auto endless = [](const std::stop_token&) { return bad_frame(); };
    CHECK_THROWS_AS(client().stream(waiting, config_of("kept"), idle, handle), Broken);
    CHECK_THROWS_AS(client().stream(sending, config_of("kept"), endless, handle), Broken);
}

TEST_CASE("a bad frame is a result, and the stream continues") {
    grpc::ClientContext context;
    int left = 3;
    const auto next = [&](const std::stop_token&) { return left-- > 0 ? std::optional(bad_frame()) : std::nullopt; };
    std::vector<std::string> reasons;
    client().stream(context, config_of("kept"), next, [&](const v1::InferStreamResponse& message) {
        if (message.has_result()) {
            reasons.push_back(Error(message.result().error()).reason);
        }
    });
    CHECK(reasons == std::vector<std::string>(3, "UNDECODABLE_IMAGE"));
}

TEST_CASE("a load whose images cannot be read leaves no reference") {
    v1::LoadReferenceRequest start;
    start.set_reference_id("half");
    const auto next = []() -> std::optional<std::string> { throw Broken("the disk is gone"); };
    CHECK_THROWS_AS(client().load(*within(10s), start, next), Broken);
    v1::GetReferenceRequest request;
    request.set_reference_id("half");
    const auto call = [&] { client().call(*within(10s), &Client::Methods::GetReference, request); };
    CHECK(code_of(call) == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("invalid options are rejected at once") {
    CHECK_THROWS_AS(Client("camera.invalid:50051", {.token = "secret"}), std::invalid_argument);
    CHECK_NOTHROW(Client("camera.invalid:50051", {.token = "secret", .insecure_token = true}));
    CHECK_NOTHROW(Client("camera.invalid:50051", {.tls = true, .token = "secret"}));
    CHECK_THROWS_AS(Client("localhost:50051", {.token = "secret\n"}), std::invalid_argument);
    CHECK_THROWS_AS(Client("localhost:50051", {.cert = "own.pem"}), std::invalid_argument);
    CHECK_THROWS_AS(Client("localhost:50051", {.ca = "no-such.pem"}), std::system_error);
    CHECK_THROWS_AS(Client("http://localhost:50051"), std::invalid_argument);
}
