#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "files.h"

namespace patchserve::cli {
namespace {

using Json = nlohmann::ordered_json;
using namespace std::chrono_literals;

constexpr auto OWN_ID = "soak-cpp";
constexpr auto TIMEOUT = 30s, RESUME_FOR = 60s;
constexpr auto PAUSE = 20ms, LOAD_PAUSE = 500ms;
constexpr std::size_t MOST_FAILURES = 10;

std::atomic<bool> stopped = false;  // by a signal

/// Counts calls by kind. Threads share it.
class Counts {
public:
    void add(const std::string& kind) { calls_[kind] = {{"ok", 0}, {"failed", 0}}; }

    void ok(const std::string& kind) {
        const std::lock_guard lock(mutex_);
        increase(calls_[kind]["ok"]);
        const auto has_succeeded = [](const auto& item) { return item.second["ok"] > 0; };
        if (!started_ && std::ranges::all_of(calls_, has_succeeded)) {
            started_ = true;
            std::cout << Json{{"started", true}}.dump() << std::endl;
        }
    }

    void failed(const std::string& kind, const std::string& what) {
        const std::lock_guard lock(mutex_);
        increase(calls_[kind]["failed"]);
        if (failures_.size() < MOST_FAILURES) {
            failures_.push_back(kind + ": " + what);
        }
    }

    void print() const {
        std::cout << Json{{"language", "cpp"}, {"calls", calls_}, {"failures", failures_}}.dump() << std::endl;
    }

private:
    static void increase(Json& number) { number = number.get<int>() + 1; }

    std::mutex mutex_;
    std::map<std::string, Json> calls_;
    std::vector<std::string> failures_;
    bool started_ = false;
};

void pause(std::chrono::milliseconds length) {
    const auto end = std::chrono::steady_clock::now() + length;
    while (!stopped && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(PAUSE);
    }
}

class Soak {
public:
    Soak(const Client& client, std::string reference, std::vector<std::string> images, int rounds)
        : client_(client), reference_(std::move(reference)), images_(std::move(images)), rounds_(rounds) {}

    void run() {
        const std::map<std::string, std::function<void(const std::string&)>> singles = {
            {"Infer", [this](const std::string& image) { infer(reference_, image); }},
            {"GetReference",
             [this](const std::string&) {
                 v1::GetReferenceRequest request;
                 request.set_reference_id(reference_);
                 client_.call(*within(TIMEOUT), &Client::Methods::GetReference, request);
             }},
            {"ListReferences",
             [this](const std::string&) { client_.call(*within(TIMEOUT), &Client::Methods::ListReferences, {}); }},
            {"GetServerInfo",
             [this](const std::string&) { client_.call(*within(TIMEOUT), &Client::Methods::GetServerInfo, {}); }},
            {"LoadReference", [this](const std::string& image) { load(image); }},
        };
        counts_.add("InferStream");
        for (const auto& [kind, call] : singles) {
            counts_.add(kind);
        }
        {
            std::vector<std::jthread> threads;
            for (const auto& single : singles) {
                threads.emplace_back([this, &single] { repeat(single.first, single.second); });
            }
            threads.emplace_back([this] { stream(); });
        }
        counts_.print();
    }

private:
    const std::string& image(int round) const { return images_[round % images_.size()]; }

    bool goes_on(int round) const { return !stopped && (rounds_ == 0 || round < rounds_); }

    void repeat(const std::string& kind, const std::function<void(const std::string&)>& call) {
        for (int round = 0; goes_on(round); ++round) {
            try {
                call(image(round));
                counts_.ok(kind);
            } catch (const Error& error) {
                counts_.failed(kind, code_name(error.code) + " " + error.reason + ": " + error.what());
            } catch (const std::runtime_error& error) {
                counts_.failed(kind, error.what());
            }
            pause(kind == "LoadReference" && rounds_ == 0 ? LOAD_PAUSE : PAUSE);
        }
    }

    v1::InferResponse infer(const std::string& reference, const std::string& image) const {
        v1::InferRequest request;
        request.set_reference_id(reference);
        request.set_image(image);
        return client_.infer(*within(TIMEOUT), request);
    }

    void load(const std::string& image) const {
        v1::LoadReferenceRequest request;
        request.set_reference_id(OWN_ID);
        request.add_images(image);
        const auto loaded = client_.call(*within(TIMEOUT), &Client::Methods::LoadReference, request).reference();
        const std::string answered = infer(OWN_ID, image).reference_revision();
        if (answered != loaded.revision()) {
            throw std::runtime_error(answered + " answered, not " + loaded.revision());
        }
    }

    void stream() {
        int sent = 0, expected = 0;
        const auto next = [&](const std::stop_token&) -> std::optional<v1::Frame> {
            if (sent > 0) {
                pause(PAUSE);
            }
            if (!goes_on(sent)) {
                return std::nullopt;
            }
            v1::Frame frame;
            frame.set_frame_id(std::to_string(sent));
            frame.set_image(image(sent++));
            return frame;
        };
        const auto handle = [&](const v1::InferStreamResponse& message) {
            if (!message.has_result()) {
                return;
            }
            const v1::FrameResult& result = message.result();
            const bool is_right = result.frame_id() == std::to_string(expected) &&
                                  result.sequence() == static_cast<std::uint64_t>(expected);
            if (is_right && result.has_response()) {
                counts_.ok("InferStream");
            } else {
                counts_.failed("InferStream", "frame " + result.frame_id() + " as " +
                                                  std::to_string(result.sequence()) + ", " + result.error().message() +
                                                  ", for " + std::to_string(expected));
            }
            ++expected;
        };
        v1::StreamConfig config;
        config.set_reference_id(reference_);
        try {
            client_.stream(Resumption{.resume_for = RESUME_FOR}, config, next, handle);
            if (sent != expected) {
                counts_.failed("InferStream", std::to_string(expected) + " results for " + std::to_string(sent) + " frames");
            }
        } catch (const Error& error) {
            counts_.failed("InferStream", code_name(error.code) + " " + error.reason + ": " + error.what());
        }
    }

    const Client& client_;
    const std::string reference_;
    const std::vector<std::string> images_;
    const int rounds_;
    Counts counts_;
};

}  // namespace

void soak(const Settings& settings) {
    std::vector<std::string> images;
    for (const auto& entry : std::filesystem::directory_iterator(settings.images)) {
        images.push_back(read_file(entry.path()));
    }
    if (images.empty()) {
        throw std::invalid_argument("there is no image in " + settings.images);
    }
    std::signal(SIGTERM, [](int) { stopped = true; });
    const Client client(settings.server, settings.options);
    Soak(client, settings.reference, std::move(images), settings.rounds).run();
}

}  // namespace patchserve::cli
