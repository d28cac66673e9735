#include "commands.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iomanip>
#include <iostream>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "files.h"

namespace patchserve::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"};

std::unique_ptr<grpc::ClientContext> context_of(const Settings& settings) {
    return within(std::chrono::round<std::chrono::nanoseconds>(std::chrono::duration<double>(settings.timeout_s)));
}

/// Reads the images of a folder one by one, sorted by name.
class Folder {
public:
    explicit Folder(const fs::path& path) {
        for (const auto& entry : fs::directory_iterator(path)) {
            std::string suffix = entry.path().extension().string();
            std::ranges::transform(suffix, suffix.begin(), [](unsigned char letter) { return std::tolower(letter); });
            if (std::ranges::find(IMAGES, suffix) != IMAGES.end()) {
                paths_.push_back(entry.path());
            }
        }
        std::ranges::sort(paths_, std::greater());  // the next image is the last element
    }

    std::optional<v1::Frame> next() {
        if (paths_.empty()) {
            return std::nullopt;
        }
        v1::Frame frame;
        frame.set_frame_id(paths_.back().filename().string());
        frame.set_image(read_file(paths_.back()));
        paths_.pop_back();
        return frame;
    }

private:
    std::vector<fs::path> paths_;
};

// How many times the threshold the image reaches, rounded on the side of the verdict.
std::string verdict(const std::string& name, const v1::InferResponse& found) {
    const double ratio = static_cast<double>(found.anomaly().raw_score()) / found.anomaly().raw_threshold();
    std::ostringstream text;
    text << name << ": " << std::fixed << std::setprecision(2);
    if (found.anomaly().is_anomalous()) {
        text << "anomalous " << std::max(ratio, 1.01) << " x";
    } else {
        text << "intact " << std::min(ratio, 1.0) << " x";
    }
    return text.str();
}

void print_result(const v1::FrameResult& result, const std::string& overlay) {
    if (result.has_error()) {
        const Error why(result.error());
        std::cout << result.frame_id() << ": " << code_name(why.code) << ' ' << why.reason << ": " << why.what()
                  << std::endl;
        return;
    }
    std::cout << verdict(result.frame_id(), result.response()) << std::endl;
    if (!overlay.empty()) {
        write_file(fs::path(overlay) / (result.frame_id() + ".png"), result.response().overlay_png());
    }
}

}  // namespace

void load(const Settings& settings) {
    const Client client(settings.server, settings.options);
    Folder folder(settings.path);
    v1::LoadReferenceRequest start;
    start.set_reference_id(settings.reference);
    start.set_profile(v1::SCORING_PROFILE_VERDICT);
    const auto next = [&folder]() -> std::optional<std::string> {
        std::optional<v1::Frame> frame = folder.next();
        return frame ? std::optional(std::move(*frame->mutable_image())) : std::nullopt;
    };
    const v1::Reference loaded = client.load(*context_of(settings), start, next);
    std::cout << loaded.reference_id() << ": " << loaded.image_count() << " images, revision " << loaded.revision()
              << std::endl;
}

void infer(const Settings& settings) {
    const Client client(settings.server, settings.options);
    v1::InferRequest request;
    request.set_reference_id(settings.reference);
    request.set_image(read_file(settings.path));
    request.mutable_output()->set_overlay(!settings.overlay.empty());
    const v1::InferResponse found = client.infer(*context_of(settings), request);
    std::cout << verdict(settings.path, found) << std::endl;
    if (!settings.overlay.empty()) {
        write_file(settings.overlay, found.overlay_png());
    }
}

void stream(const Settings& settings) {
    const Client client(settings.server, settings.options);
    Folder folder(settings.path);
    v1::StreamConfig config;
    config.set_reference_id(settings.reference);
    config.mutable_output()->set_overlay(!settings.overlay.empty());
    const auto next = [&folder](const std::stop_token&) { return folder.next(); };
    client.stream(*context_of(settings), config, next, [&settings](const v1::InferStreamResponse& message) {
        if (message.has_notice()) {
            std::cerr << message.notice().message() << std::endl;
        } else if (message.has_result()) {
            print_result(message.result(), settings.overlay);
        }
    });
}

}  // namespace patchserve::cli
