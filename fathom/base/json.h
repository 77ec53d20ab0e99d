// JSON from files: nlohmann's parser behind a depth limit, errors with the path.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fathom {

using Json = nlohmann::json;

// where names the file in the error. Throws Error(kInput): not JSON, deeper than max_depth, a key twice in one object.
Json ParseJson(std::string_view text, const std::string& where, int max_depth = 64);
Json ReadJsonFile(const std::filesystem::path& path, int max_depth = 64);

// As text for a file, one line (indent -1) or many. What is not UTF-8, such as a file's name may be, gets U+FFFD in its place.
std::string JsonText(const Json& json, int indent = 1);

}  // namespace fathom
