"""What all rooms use.

- Values: `attributes`, `spaces`, `images`, `seeding`.
- Configuration: `conf` reads files, `validation` and `compute_options` check values, `annotations`
  reads the kinds of arguments, `instantiate` builds components, `user_code` imports those of a user.
- What determines a result: `identity`, `sources`.
- Files: `files`, `text`.
- Tensors that others must not change: `changes`.
- The machine: `devices`, `precision`, `batches`, `allocator`, `threads`, `workers`.
- Messages: `errors`, `progress`, `output`.
"""
