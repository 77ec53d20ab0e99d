// Typed reading of a JSON object's fields that keeps count of which were read, so that what nobody understood can be named.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

class JsonFields {
 public:
  // where names the file in errors. json must outlive this. Throws Error(kInput): not an object.
  JsonFields(const Json& json, std::string where);
  // The object in a field of this one, whose own fields are called name.FIELD. Throws Error(kInput) as above, or if it is absent.
  JsonFields Inner(const std::string& name);

  // Present and not null. Marks the field as read.
  bool Has(std::string_view name);
  // The field's value; throws Error(kInput) naming it if it is absent, null or of another type.
  int64_t Int(std::string_view name);
  double Double(std::string_view name);  // an integer will do; finite
  bool Bool(std::string_view name);
  std::string String(std::string_view name);
  const Json& Any(std::string_view name);
  std::vector<int64_t> Ids(std::string_view name);  // a whole number, or a list of them that is not empty
  // The same, or the default where the field is absent or null.
  int64_t Int(std::string_view name, int64_t otherwise) { return Has(name) ? Int(name) : otherwise; }
  double Double(std::string_view name, double otherwise) { return Has(name) ? Double(name) : otherwise; }
  bool Bool(std::string_view name, bool otherwise) { return Has(name) ? Bool(name) : otherwise; }
  std::string String(std::string_view name, const std::string& otherwise) { return Has(name) ? String(name) : otherwise; }

  void Ignore(std::string_view name) { read_.emplace(name); }
  // Throws unless every field was read, ignored, is vouched for (by its whole name: rope_scaling.x), or says nothing (null, false, "", []
  // or {}).
  void CheckAllRead(const std::vector<std::string>& vouched_for = {}) const;
  // Throws Error(kInput): "WHERE: NAME is FOUND, allowed is ALLOWED".
  [[noreturn]] void Wrong(std::string_view name, const std::string& allowed) const;
  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  std::string where_, prefix_;  // of the fields' whole names
  std::set<std::string, std::less<>> read_;
};

}  // namespace fathom
