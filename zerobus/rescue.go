package zerobus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"
)

// rescueTag marks a table's rescue column, a nullable VARIANT: it takes the
// fields of JSON rows that are no column or do not fit one. Rows as protobuf
// are refused for them as without it.
// https://docs.databricks.com/aws/en/ingestion/zerobus-rescue-column
const rescueTag = "zerobus-rescue"

// The bounds of the search for the rescue column.
const (
	rescueColumnsMax = 20 // columns whose tags are read
	tagPagesMax      = 10 // of one column's tags
	tagBytesMax      = 1 << 20
)

// rescue is what is known of the rescue column.
type rescue struct {
	column string // "": there is none, or it is not known
	err    error  // why it is not known
}

// findRescue looks for the rescue column, for Encoding to choose the form of
// rows. Nothing else needs it, so tags are read only while record_format auto
// has not chosen, and only of columns that could be it.
func (c *Client) findRescue(ctx context.Context, cols []Column) {
	if c.grpc == nil || c.set.RecordFormat != FormatAuto || c.grpc.numbers.chosen() {
		return
	}
	var found rescue
	asked := 0
	for _, col := range cols {
		if col.Type != "VARIANT" || col.NotNull {
			continue
		}
		if asked++; asked > rescueColumnsMax {
			found.err = errors.Join(found.err, fmt.Errorf("the table has more than %d nullable VARIANT columns", rescueColumnsMax))
			break
		}
		tagged, err := c.hasTag(ctx, col.Name, rescueTag)
		if tagged {
			found = rescue{column: col.Name}
			break
		}
		if err != nil {
			found.err = fmt.Errorf("read the tags of column %q: %w", clean(col.Name, 255), err)
			break // the next column's would fail likewise
		}
	}
	c.grpc.numbers.setRescue(found)
}

func (n *fieldNumbers) chosen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settled != ""
}

func (n *fieldNumbers) setRescue(r rescue) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rescue = r
}

// hasTag reports whether a column has a Unity Catalog tag of this key.
//
//	GET {workspace_url}/api/2.1/unity-catalog/entity-tag-assignments/columns/{catalog.schema.table.column}/tags
//
// https://docs.databricks.com/api/uc-entity-tag-assignments/v1/list-entity-tag-assignments
func (c *Client) hasTag(ctx context.Context, column, key string) (bool, error) {
	page := ""
	for range tagPagesMax {
		answer, err := c.readTags(ctx, column, page)
		if err != nil {
			return false, err
		}
		for _, tag := range answer.Tags {
			if tag.Key == key {
				return true, nil
			}
		}
		if page = answer.Next; page == "" {
			return false, nil
		}
	}
	return false, fmt.Errorf("they are more than %d pages", tagPagesMax)
}

// tagPage is a page of a column's tags.
type tagPage struct {
	Tags []struct {
		Key string `json:"tag_key"`
	} `json:"tag_assignments"`
	Next string `json:"next_page_token"`
}

func (c *Client) readTags(ctx context.Context, column, page string) (tagPage, error) {
	token, err := c.plain.get(ctx)
	if err != nil {
		return tagPage{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(columnsTimeout, c.set.Timeout))
	defer cancel()
	at := c.set.base.String() + "/api/2.1/unity-catalog/entity-tag-assignments/columns/" + c.set.table.path() + "." + url.PathEscape(column) + "/tags"
	if page != "" {
		at += "?page_token=" + url.QueryEscape(page)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return tagPage{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.set.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return tagPage{}, innermost(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return tagPage{}, fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, tagBytesMax))
	var answer tagPage
	if err == nil && (!strings.HasPrefix(strings.TrimSpace(string(text)), "{") || json.Unmarshal(text, &answer) != nil) {
		err = errors.New("the answer is no list of tags")
	}
	return answer, err
}

// rescued logs that rows go out as JSON for the sake of the rescue column.
func (r rescue) rescued(log *zap.Logger) {
	log.Info("rows go out as JSON, since the rescue column takes nothing from protobuf rows",
		zap.String("column", clean(r.column, 255)), zap.String("tag", rescueTag))
}

// unseen logs that rows go out as protobuf though there may be a rescue column.
func (r rescue) unseen(log *zap.Logger) {
	log.Info("rows go out as protobuf, and whether the table has a rescue column is not known", zap.Error(r.err),
		zap.String("remedy", "set zerobus.record_format to json if a column has the tag "+rescueTag))
}
