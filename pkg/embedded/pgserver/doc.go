// Package pgserver runs real PostgreSQL servers as child processes: a primary and streaming standbys, for the
// embedded defaults of the all-in-one program and for tests.
//
// [Install] finds the binaries in a cache or fetches them once; later starts need no network. [Open] starts a primary
// on a directory and [OpenStandby] a standby that follows one. Both take the directory as they find it: new, cleanly
// stopped, killed, half-made, or still held by a server that an earlier, killed run left behind.
//
// Servers listen on 127.0.0.1 only, with trust authentication: whoever may run programs on the machine may connect.
// That is right for a laptop and for tests and for nothing else.
//
// PostgreSQL refuses to run as root. Called by root, the package runs it as the user "postgres", else "nobody"; the
// installation and the data directory must then be reachable for that user, so neither may lie below root's home.
//
// A directory given to this package holds:
//
//	role          "primary" or "standby": written first, so that nothing else is ever taken for ours and replaced
//	lock          held by the process that runs the server; holds its id
//	data/         the cluster; it appears by a rename, so it is always whole
//	data.new/     a cluster being made; removed and begun anew when it is found
//	postgres.log  what the server says, appended; the previous one is postgres.log.1
package pgserver
