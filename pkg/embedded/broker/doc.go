// Package broker is the embedded Kafka of a laptop.
package broker
