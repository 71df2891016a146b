package databricks

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Metastore is the Unity Catalog metastore of the workspace.
type Metastore struct {
	ID     string `json:"metastore_id"`
	Cloud  string `json:"cloud"`  // aws, azure or gcp
	Region string `json:"region"` // such as us-west-2
	// Endpoint is of the Zerobus endpoint where the workspace is an emulator on a loopback
	// address; empty elsewhere.
	Endpoint string `json:"zerobus_endpoint"`
}

// Metastore returns the metastore, and the workspace id where the answer carries it.
//
//	GET /api/2.1/unity-catalog/metastore_summary
//
// https://docs.databricks.com/api/workspace/metastores/summary
func (c *Client) Metastore(ctx context.Context) (m Metastore, workspaceID string, err error) {
	header, err := c.get(ctx, "/api/2.1/unity-catalog/metastore_summary", nil, &m)
	if err != nil {
		return m, "", err
	}
	return m, numeric(header.Get(workspaceHeader)), nil
}

// WorkspaceID returns the id of the workspace, from the assignment of its metastore.
//
//	GET /api/2.1/unity-catalog/current-metastore-assignment
//
// https://docs.databricks.com/api/workspace/metastores/current
func (c *Client) WorkspaceID(ctx context.Context) (string, error) {
	var answer struct {
		ID json64 `json:"workspace_id"`
	}
	header, err := c.get(ctx, "/api/2.1/unity-catalog/current-metastore-assignment", nil, &answer)
	if err != nil {
		return "", err
	}
	if id := numeric(header.Get(workspaceHeader)); id != "" {
		return id, nil
	}
	if id := numeric(string(answer.ID)); id != "" {
		return id, nil
	}
	return "", errors.New("GET /api/2.1/unity-catalog/current-metastore-assignment: the answer names no workspace id")
}

// json64 is a number as written, quoted or not.
type json64 string

// UnmarshalJSON takes a number or a text.
func (n *json64) UnmarshalJSON(text []byte) error {
	*n = json64(strings.Trim(string(text), `"`))
	return nil
}

var digits = regexp.MustCompile(`^[0-9]{1,20}$`)

func numeric(text string) string {
	if digits.MatchString(text) {
		return text
	}
	return ""
}

// domains are those of the clouds.
var domains = map[string]string{"aws": "cloud.databricks.com", "azure": "azuredatabricks.net", "gcp": "gcp.databricks.com"}

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// EndpointHost returns the host name of the Zerobus endpoint:
//
//	<workspace id>.zerobus.<region>.<domain of the cloud>
//
// https://docs.databricks.com/aws/en/ingestion/zerobus-ingest
func EndpointHost(workspaceID, region, cloud string) (string, error) {
	domain := domains[cloud]
	switch {
	case domain == "":
		return "", fmt.Errorf("the cloud %q is none of aws, azure and gcp", Clean(cloud, 40))
	case !regionName.MatchString(region):
		return "", fmt.Errorf("the region %q is no name of a region", Clean(region, 40))
	case numeric(workspaceID) == "":
		return "", fmt.Errorf("the workspace id %q is no number", Clean(workspaceID, 40))
	}
	return workspaceID + ".zerobus." + region + "." + domain, nil
}

// path escapes one segment of a path.
func path(segment string) string { return url.PathEscape(segment) }
