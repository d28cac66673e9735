// Whole files, with errors that name them.
#pragma once

#include <filesystem>
#include <string>

namespace patchserve {

/// Throws std::system_error.
std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& content);

}  // namespace patchserve
