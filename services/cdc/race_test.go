//go:build race

package cdc

// raceEnabled: the race detector takes several times the memory.
const raceEnabled = true
