// What the command line can do.
#pragma once

#include <string>

#include "patchserve/client.h"

namespace patchserve::cli {

struct Settings {
    std::string server = "localhost:50051";
    Options options;
    std::string reference = "default";
    double timeout_s = 600;
    std::string overlay;          // empty: none is asked for
    std::string path;             // the folder or the image
    std::string cases, images;  // of conformance
};

void load(const Settings& settings);
void infer(const Settings& settings);
void stream(const Settings& settings);

/// The runner of tests/conformance: carries out cases and prints what came of each. Its README says how.
void conformance(const Settings& settings);

}  // namespace patchserve::cli
