package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
)

// TraceParent is the name of the W3C trace context header, in HTTP and in Kafka records alike
// (https://www.w3.org/TR/trace-context/).
const TraceParent = "traceparent"

type traceKey struct{}

// WithTrace returns a context that carries a traceparent value. A malformed value is replaced by a new one, as
// the specification asks.
func WithTrace(ctx context.Context, traceparent string) context.Context {
	if !validTraceParent(traceparent) {
		traceparent = NewTrace()
	}
	return context.WithValue(ctx, traceKey{}, traceparent)
}

// Trace is the traceparent value that ctx carries, or "".
func Trace(ctx context.Context) string {
	t, _ := ctx.Value(traceKey{}).(string)
	return t
}

// NewTrace begins a trace: version 00, random ids, not sampled (no spans are recorded yet).
func NewTrace() string {
	var id [24]byte
	rand.Read(id[:]) // never fails, by its contract
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00"
}

func validTraceParent(s string) bool {
	if len(s) != 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	zeroTrace, zeroSpan := true, true
	for i := range len(s) {
		if i == 2 || i == 35 || i == 52 {
			continue
		}
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
		if c != '0' && i > 2 && i < 35 {
			zeroTrace = false
		}
		if c != '0' && i > 35 && i < 52 {
			zeroSpan = false
		}
	}
	return !zeroTrace && !zeroSpan
}
