// Package bench measures Millrace's programs side by side, in one run, with what they are compared with: ratios carry
// over from machine to machine, absolute figures do not.
//
// The benchmarks carry the build tag bench (make bench) and run the programs of bin/ (make build) as processes of their
// own. Each comparison is a process of its own too: this test program started again with another task (see sides).
// Kafka is Apache Kafka where Java and Maven are there, else the embedded broker; MILLRACE_TEST_KAFKA=embedded or =real
// decides. -short takes less data. MILLRACE_TEST_BIN takes the programs from another directory, for example built with
// profiling.
//
// A missed target is printed, not a failure, but for one: the time from a commit to the number on the dashboard.
package bench
