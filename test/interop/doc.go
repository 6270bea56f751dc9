// Package interop proves that consumers nobody here wrote understand what capture writes: Debezium's JDBC sink and its
// transform for flat rows in Kafka Connect, and Confluent's Python client with its Avro deserializer. A primary with a
// standby goes through the program cdc into Apache Kafka and the Apicurio registry; the consumers' results are compared
// with the source, row by row, by SQL.
//
// The tests carry the build tag real (make interop): they need Java, Maven and Python, and the programs of bin/.
package interop
