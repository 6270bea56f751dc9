package registry

import (
	"fmt"
	"net/http"
)

// apiError is an answer other than success: Confluent's code, whose first three
// digits are the HTTP status.
type apiError struct {
	code int
	msg  string
}

// Error implements error.
func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.code, e.msg) }

// status is the HTTP status that goes with the code.
func (e *apiError) status() int {
	if e.code >= 10000 {
		return e.code / 100
	}
	return e.code
}

func fail(code int, format string, args ...any) *apiError {
	return &apiError{code: code, msg: fmt.Sprintf(format, args...)}
}

const (
	codeSubjectNotFound       = 40401
	codeVersionNotFound       = 40402
	codeSchemaNotFound        = 40403
	codeSubjectSoftDeleted    = 40404
	codeSubjectNotSoftDeleted = 40405
	codeVersionSoftDeleted    = 40406
	codeVersionNotSoftDeleted = 40407
	codeNoSubjectLevel        = 40408
	codeNoSubjectMode         = 40409
	codeInvalidSchema         = 42201
	codeInvalidVersion        = 42202
	codeInvalidLevel          = 42203
	codeInvalidMode           = 42204
	codeNotPermitted          = 42205
	codeSchemaTooLarge        = 42209
	codeStore                 = 50001
	codeIncompatible          = http.StatusConflict
	codeBadRequest            = http.StatusBadRequest
)
