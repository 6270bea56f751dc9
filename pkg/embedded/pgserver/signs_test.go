package pgserver

import "testing"

func TestOnlyTheReceiversOwnEndMeansStale(t *testing.T) {
	const client = "2026-01-01 UTC [7] ERROR:  can no longer access replication slot \"cdc\"\n"
	const receiver = "2026-01-01 UTC [8] FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment 000000010000000000000003 has already been removed"
	if sign := findSign(client, "FATAL:", staleSigns); sign != "" {
		t.Errorf("a client's error %q would rebuild the standby", sign)
	}
	if sign := findSign(client+receiver+"\n", "FATAL:", staleSigns); sign != receiver {
		t.Errorf("found %q, want the receiver's line", sign)
	}
}
