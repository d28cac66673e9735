// The commands of the command line.
#pragma once

#include <string>

#include "patchserve/client.h"

namespace patchserve::cli {

struct Settings {
    std::string server = "localhost:50051";
    Options options;
    std::string reference = "default";
    double timeout_s = 600;
    std::string overlay;        // empty: no overlay
    std::string path;           // the folder or the image
    std::string cases, images;  // for `conformance` and `soak`
    int rounds = 0;             // for `soak`; 0: until SIGTERM
};

void load(const Settings& settings);
void infer(const Settings& settings);
void stream(const Settings& settings);

/// The conformance runner: runs test cases and prints their outcomes. tests/conformance/README.md defines the format.
void conformance(const Settings& settings);

/// The load generator for tests of a fleet. tests/conformance/README.md says what it does and prints.
void soak(const Settings& settings);

}  // namespace patchserve::cli
