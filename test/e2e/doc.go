// Package e2e runs the built programs as a user does and checks what comes out: real input in, totals compared cell by
// cell with the source, programs killed at random moments, the pages in a browser.
//
// The tests carry the build tag e2e. They run the programs of bin/ (make build) either as processes of their own
// around a broker (the embedded one, or Apache Kafka with Apicurio when MILLRACE_TEST_KAFKA=real) or as standalone.
package e2e
