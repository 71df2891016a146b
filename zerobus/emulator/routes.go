package emulator

import (
	"net/http"
)

// The paths of the workspace.
const (
	TokenPath   = "/oidc/v1/token"
	IngestPath  = "/api/2.0/streaming-ingestion/ingest"
	ColumnsPath = "/api/2.1/unity-catalog/tables/" // followed by catalog.schema.table
)

// routes are the workspace's endpoints and, under /emulator/, the admin API.
func (e *Emulator) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+TokenPath, e.endpoint(EndpointToken, maxFormBytes, e.token))
	mux.Handle("POST "+IngestPath, e.endpoint(EndpointIngest, e.cfg.MaxRequestBytes, e.ingest))
	mux.Handle("GET "+ColumnsPath+"{name}", e.endpoint(EndpointColumns, maxFormBytes, e.columns))
	mux.Handle("GET "+TagsPath+"{name}/tags", e.endpoint(EndpointColumns, maxFormBytes, e.tags))
	mux.HandleFunc("GET /healthz", healthz)
	// Pages of other origins may not change anything here, though anyone who
	// can open a connection may: the admin API is for loopback.
	mux.Handle("/emulator/", http.NewCrossOriginProtection().Handler(e.admin()))
	mux.HandleFunc("/", noEndpoint)
	return e.active.guard(mux)
}

// InsertPath is the path of the REST insert for a table of the Zerobus
// endpoint.
func InsertPath(table string) string { return "/zerobus/v1/tables/" + table + "/insert" }

// restRoutes are what the Zerobus endpoint serves by HTTP/1.1.
func (e *Emulator) restRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+InsertPath("{name}"), e.endpoint(EndpointInsert, e.cfg.MaxRequestBytes, e.insert))
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("/", noEndpoint)
	return e.active.guard(mux)
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

func noEndpoint(w http.ResponseWriter, r *http.Request) {
	a := (&apiError{
		status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND",
		message: "No API found for '" + printable(r.Method) + " " + printable(r.URL.Path) + "'",
	}).answer("")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have left
}
