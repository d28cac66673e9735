#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <absl/strings/escaping.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "files.h"
#include "generic_call.h"

namespace patchserve::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double TIMEOUT_S = 60;

const google::protobuf::MethodDescriptor& method_of(const std::string& rpc) {
    const std::string service = rpc == "Check" ? "grpc.health.v1.Health" : v1::PatchCoreService::service_full_name();
    const auto* method = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(service + "." + rpc);
    if (method == nullptr) {
        throw std::invalid_argument("unknown method: " + rpc);
    }
    return *method;
}

std::unique_ptr<grpc::ClientContext> context_of(const std::string& token, double timeout_s) {
    auto context = within(std::chrono::round<std::chrono::nanoseconds>(std::chrono::duration<double>(timeout_s)));
    if (!token.empty()) {
        context->AddMetadata("authorization", "Bearer " + token);
    }
    return context;
}

Json error_fields(const Error& error) {
    Json fields = Json::array(), preconditions = Json::array();
    for (const auto& violation : error.field_violations) {
        fields.push_back({{"field", violation.field()}});
    }
    for (const auto& violation : error.precondition_violations) {
        preconditions.push_back({{"type", violation.type()}, {"subject", violation.subject()}});
    }
    return {{"reason", error.reason},
            {"field_violations", fields},
            {"precondition_violations", preconditions},
            {"resource_name", error.resource_name},
            {"retry_after_s", error.retry_after ? Json(error.retry_after->count()) : Json()}};
}

class Runner {
public:
    Runner(const Client& client, std::filesystem::path images) : client_(client), images_(std::move(images)) {}

    Json run_case(const Json& test_case, std::string token) const {
        token = test_case.value("token", token);
        const auto& method = method_of(test_case.at("rpc"));
        GenericCall call(client_.channel(), method, context_of(token, test_case.value("timeout_s", TIMEOUT_S)));
        Json calls = Json::array();
        const Json steps = test_case.contains("steps") ? test_case["steps"]
                                                       : Json::array({{{"send", test_case.at("request")}}});
        for (const Json& step : steps) {
            if (step.contains("send")) {
                send(call, method, step);
            } else if (step.contains("await")) {
                call.wait_for(step["await"]);
            } else if (step.contains("call")) {
                calls.push_back(run_case(step["call"], token));
            } else if (step.contains("until_loads")) {
                wait_for_loads(step["until_loads"], token);
            } else if (step.contains("cancel")) {
                call.cancel();
            } else {
                throw std::invalid_argument("unknown step: " + step.dump());
            }
        }
        const grpc::Status status = call.end();
        Json responses = Json::array();
        for (const std::string& text : call.responses()) {
            responses.push_back(Json::parse(text));
        }
        return {{"code", code_name(status.error_code())},
                {"error", status.ok() ? Json() : error_fields(Error(status))},
                {"responses", responses},
                {"calls", calls}};
    }

private:
    void send(GenericCall& call, const google::protobuf::MethodDescriptor& method, const Json& step) const {
        const auto request = new_message(*method.input_type());
        const std::string json = with_images(step["send"]).dump();
        const auto parsed = google::protobuf::util::JsonStringToMessage(json, request.get());
        if (!parsed.ok()) {
            throw std::invalid_argument("not a " + method.input_type()->name() + ": " + parsed.ToString());
        }
        for (int time = 0; time < step.value("times", 1); ++time) {
            call.send(*request);
        }
    }

    void wait_for_loads(int count, const std::string& token) const {
        while (client_.call(*context_of(token, TIMEOUT_S), &Client::Methods::ListLoads, {}).loads_size() < count) {
        }
    }

    /// The same value, with "@NAME" replaced by the Base64 content of that image.
    Json with_images(Json value) const {
        if (value.is_structured()) {
            for (Json& item : value) {
                item = with_images(std::move(item));
            }
        } else if (value.is_string() && value.get_ref<const std::string&>().starts_with('@')) {
            return absl::Base64Escape(read_file(images_ / value.get_ref<const std::string&>().substr(1)));
        }
        return value;
    }

    const Client& client_;
    const std::filesystem::path images_;
};

}  // namespace

void conformance(const Settings& settings) {
    Options options = settings.options;
    options.token.clear();  // each call has its own token
    const Client client(settings.server, options);
    const Runner runner(client, settings.images);
    const Json suite = Json::parse(read_file(settings.cases));
    for (const Json& test_case : suite.at("cases")) {
        Json line = {{"name", test_case.at("name")}};
        line.update(runner.run_case(test_case, settings.options.token));
        std::cout << line.dump() << std::endl;
    }
}

}  // namespace patchserve::cli
