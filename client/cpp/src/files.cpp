#include "files.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <system_error>

namespace patchserve {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path) {
    throw std::system_error(errno, std::generic_category(), path.string());
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail(path);
    }
    try {
        return {std::istreambuf_iterator<char>(file), {}};
    } catch (const std::ios_base::failure& error) {  // for example a folder; this error does not name the file
        throw std::system_error(error.code(), path.string());
    }
}

void write_file(const std::filesystem::path& path, const std::string& content) {
    std::ofstream file(path, std::ios::binary);
    file << content;
    file.close();
    if (!file) {
        fail(path);
    }
}

}  // namespace patchserve
