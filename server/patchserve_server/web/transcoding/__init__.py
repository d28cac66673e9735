"""The contract as JSON over HTTP: a route for each unary method, built from the `google.api.http` options.

The path, the query and the body of a request become one message, by protobuf's own JSON mapping. `routes` has the
entrance, `bindings` and `path_templates` find the method, `requests` reads the message. `json_text` and `json_values`
stand between a caller and the mapping, which checks less than it seems.
"""
