// patchserve-cpp: load a reference, inspect images, stream a folder.
#include <cstdlib>
#include <exception>
#include <iostream>

#include <CLI/CLI.hpp>

#include "commands.h"

namespace patchserve::cli {
namespace {

void add_connection(CLI::App& command, Settings& settings) {
    Options& options = settings.options;
    command.add_option("--server", settings.server, "the server")->type_name("HOST:PORT")->capture_default_str();
    command.add_flag("--tls", options.tls, "use TLS; --ca and --cert imply it");
    command.add_option("--ca", options.ca, "a PEM file: authorities for the server's certificate")->type_name("FILE");
    command.add_option("--cert", options.cert, "a PEM file: the client's certificate")->type_name("FILE");
    command.add_option("--key", options.key, "a PEM file: the key of --cert")->type_name("FILE");
    command.add_option("--token", options.token, "the bearer token")->type_name("TOKEN")->envname("PATCHSERVE_TOKEN");
    command.add_flag("--insecure-token", options.insecure_token, "allow the token unencrypted to another machine");
}

using Run = void (*)(const Settings&);

CLI::App& add_command(CLI::App& app, Settings& settings, const char* name, const char* about, Run run) {
    CLI::App& command = *app.add_subcommand(name, about);
    command.callback([&settings, run] { run(settings); });
    add_connection(command, settings);
    return command;
}

void add_inspection(CLI::App& command, Settings& settings, const char* path, const char* about) {
    command.add_option("--reference", settings.reference, "the reference's id")->type_name("ID")->capture_default_str();
    command.add_option("--timeout", settings.timeout_s, "the deadline of the call")
        ->type_name("SECONDS")
        ->check(CLI::Range(0.001, 1e6))
        ->capture_default_str();
    command.add_option(path, settings.path, about)->type_name("")->required();
}

int run(int argc, char** argv) {
    Settings settings;
    CLI::App app("A client for patchserve, a gRPC server for visual anomaly detection.", "patchserve-cpp");
    app.require_subcommand(1);

    CLI::App& loading = add_command(app, settings, "load", "build a reference from the images in a folder", load);
    add_inspection(loading, settings, "FOLDER", "images of undamaged items");

    CLI::App& inferring = add_command(app, settings, "infer", "inspect one image", infer);
    inferring.add_option("--overlay", settings.overlay, "the file for the overlay")->type_name("FILE");
    add_inspection(inferring, settings, "IMAGE", "the image");

    CLI::App& streaming = add_command(app, settings, "stream", "inspect all images in a folder in one stream", stream);
    streaming.add_option("--overlay", settings.overlay, "the folder for overlays, NAME.png")->type_name("FOLDER");
    add_inspection(streaming, settings, "FOLDER", "the images");

    CLI::App& runner = add_command(app, settings, "conformance", "run the cases of tests/conformance", conformance);
    runner.add_option("--cases", settings.cases, "the test cases")->type_name("FILE")->required();
    runner.add_option("--images", settings.images, "their images")->type_name("FOLDER")->required();

    CLI::App& soaking = add_command(app, settings, "soak", "call until SIGTERM, as tests/conformance says", soak);
    soaking.add_option("--reference", settings.reference, "the reference's id")->type_name("ID");
    soaking.add_option("--images", settings.images, "a folder of images")->type_name("FOLDER")->required();
    soaking.add_option("--rounds", settings.rounds, "end after so many calls of each kind")->type_name("N");

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;  // 0: --help
    } catch (const Error& error) {
        std::cerr << code_name(error.code) << (error.reason.empty() ? "" : " ") << error.reason << ": " << error.what()
                  << std::endl;
        return 1;
    } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace patchserve::cli

int main(int argc, char** argv) {
    setenv("GRPC_VERBOSITY", "NONE", 0);  // an error is one line, without gRPC's log
    return patchserve::cli::run(argc, argv);
}
