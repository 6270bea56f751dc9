// Package registry is a schema registry in process: the Confluent Schema
// Registry's HTTP API for Avro, over one append-only file or in memory.
//
// What it keeps from Confluent: ids are global, given once and never reused;
// the same schema has one id under every subject; versions count up per
// subject; registering is idempotent; the default compatibility is BACKWARD;
// errors carry Confluent's codes.
//
// Two texts are the same schema if they are the same JSON apart from white
// space, the order of attributes and {"type":"string"} for "string". Defaults,
// docs, aliases and logical types count: a schema that only gained a default is
// another schema, as in Confluent. Whether schemas are compatible is decided
// without logical types, as there.
//
// What it leaves out: schema types other than Avro (422, code 42201), schema
// references (likewise), contexts, data contracts (metadata and rule sets are
// ignored), and the IMPORT mode (42204). A schema is at most 1 MiB (42209).
//
// Every change is one line of JSON, written and fsynced before it is answered;
// a change that cannot be written is answered with 500, code 50001, and has not
// happened. A last line cut short by a crash is dropped when the file is next
// opened. One process may have the file open at a time.
package registry
