// Reads and writes whole files. Errors contain the name of the file.
#pragma once

#include <filesystem>
#include <string>

namespace patchserve {

/// Both throw std::system_error.
std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& content);

}  // namespace patchserve
