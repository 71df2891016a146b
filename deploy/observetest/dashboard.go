// Package observetest generates the Grafana dashboard and tests it and the alert
// rules. rows.go has the rows and queries of the dashboard, this file the JSON that
// Grafana needs.
//
// It is a module of its own, so that Prometheus and promtool stay out of the
// bridge's.
package observetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Dashboard returns the dashboard in Grafana's JSON of schema version 42
// (Grafana 12), as it is imported or provisioned.
func Dashboard() ([]byte, error) {
	d := object{
		"uid": "bridge", "title": "Bridge", "tags": []string{"bridge", "kafka"}, "schemaVersion": 42, "editable": true,
		"description": "From Kafka to Zerobus. Each row answers one question; start with the first.",
		"refresh":     "30s", "time": object{"from": "now-3h", "to": "now"}, "timezone": "browser",
		"graphTooltip": 1, // one crosshair for all panels
		"templating":   object{"list": variables()},
		"annotations":  object{"list": []object{versions()}},
		"links": []object{{
			"type": "link", "title": "Runbook", "icon": "doc", "targetBlank": true,
			"url": "https://github.com/datafly/bridge/blob/main/docs/operations.md#alerts",
		}},
		"panels": layOut(rows()),
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("encoding the dashboard: %w", err)
	}
	return b.Bytes(), nil
}

type object = map[string]any

// source is the data source of every query, chosen by a variable.
func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

// variables returns the choices above the panels; each depends on those before it.
func variables() []object {
	query := func(name, label, expr string) object {
		return object{
			"name": name, "label": label, "type": "query", "datasource": source(),
			"query": object{"query": expr, "refId": name}, "definition": expr,
			"refresh": 2, // when the time range changes, for members of that time
			"sort":    1, "multi": true, "includeAll": true,
			"current": object{"text": []string{"All"}, "value": []string{"$__all"}},
		}
	}
	// "All" of these matches anything. A list would miss members that started later,
	// grow with each rollout, and be empty without a namespace.
	anything := func(variable object) object {
		variable["allValue"] = ".*"
		return variable
	}
	return []object{
		{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
		anything(query("namespace", "Namespace", `label_values(bridge_group_info, namespace)`)),
		query("group", "Group", `label_values(bridge_group_info{namespace=~"$namespace"}, group)`),
		// A list, since it restricts the others to the group.
		query("job", "Job", `label_values(bridge_group_info{namespace=~"$namespace", group=~"$group"}, job)`),
		anything(query("instance", "Instance", `label_values(bridge_group_info{namespace=~"$namespace", job=~"$job"}, instance)`)),
		anything(query("integration", "Integration", `label_values(bridge_group_info{namespace=~"$namespace", job=~"$job"}, integration)`)),
		anything(query("topic", "Topic", `label_values(bridge_dead_letters_total{`+member+`}, topic)`)),
	}
}

// versions marks the start of a version in every graph.
func versions() object {
	return object{
		"name": "Versions", "datasource": source(), "enable": true, "iconColor": "blue", "titleFormat": "{{version}}",
		"expr": `count by (version) (bridge_build_info{` + process + `}) unless count by (version) (bridge_build_info{` + process + `} offset 5m)`,
		"step": "60s",
	}
}

// row is one question and the panels that answer it.
type row struct {
	title  string
	panels []panel
}

// panel is one panel of the dashboard, which is 24 columns wide.
type panel struct {
	kind, title, about, unit string
	none                     string // shown if there is no data
	width, height            int
	queries                  []query
	defaults                 object // beside unit and min
	options                  object
	transformations          []object
}

// query is one expression; an instant one is evaluated at the end of the range.
type query struct {
	expr, legend, format string
	instant              bool
}

func q(expr, legend string) query { return query{expr: expr, legend: legend} }

// layOut numbers the panels and places them from left to right, in lines as high as
// their highest panel.
func layOut(rows []row) []object {
	var out []object
	y := 0
	add := func(o object, x, w, h int) {
		o["id"], o["gridPos"] = len(out)+1, object{"x": x, "y": y, "w": w, "h": h}
		out = append(out, o)
	}
	for _, r := range rows {
		add(object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}}, 0, 24, 1)
		y++
		x, line := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y, line = 0, y+line, 0
			}
			add(p.object(), x, p.width, p.height)
			x, line = x+p.width, max(line, p.height)
		}
		y += line
	}
	return out
}

func (p panel) object() object {
	// By default an empty panel means that no member is scraped.
	defaults := object{"unit": p.unit, "min": 0, "noValue": cmp.Or(p.none, "no member is scraped")}
	for k, v := range p.defaults {
		if v == nil {
			delete(defaults, k)
			continue
		}
		defaults[k] = v
	}
	targets := make([]object, 0, len(p.queries))
	for i, query := range p.queries {
		target := object{
			"refId": string(rune('A' + i)), "datasource": source(), "expr": query.expr, "legendFormat": query.legend,
			"instant": query.instant, "range": !query.instant, "editorMode": "code",
		}
		if query.format != "" {
			target["format"] = query.format
		}
		targets = append(targets, target)
	}
	o := object{
		"type": p.kind, "title": p.title, "description": p.about, "datasource": source(), "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}, "options": p.options,
	}
	if p.transformations != nil {
		o["transformations"] = p.transformations
	}
	return o
}

// step is the colour of values from one on.
type step struct {
	from   float64
	colour string
}

// stat returns a panel of one number, green below the first step.
func stat(title, about, unit, expr string, steps ...step) panel {
	return panel{
		kind: "stat", title: title, about: about, unit: unit, width: 3, height: 4,
		queries:  []query{{expr: expr, instant: true}},
		defaults: object{"min": nil, "thresholds": thresholds("green", steps)},
		options: object{
			"colorMode": "background", "graphMode": "none", "textMode": "value", "justifyMode": "center",
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		},
	}
}

// graph returns a panel of lines over time.
func graph(title, about, unit string, queries ...query) panel {
	legend := object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}}
	fill := 10
	// For many members, a scrolling list with the highest first.
	if slices.ContainsFunc(queries, func(q query) bool {
		return strings.Contains(q.legend, "{{instance}}") || strings.Contains(q.legend, "{{partition}}")
	}) {
		legend = object{
			"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"},
			"sortBy": "Max", "sortDesc": true,
		}
		fill = 0
	}
	return panel{
		kind: "timeseries", title: title, about: about, unit: unit, width: 8, height: 8, queries: queries,
		defaults: object{"custom": object{"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "spanNulls": false}},
		options:  object{"legend": legend, "tooltip": object{"mode": "multi", "sort": "desc", "maxHeight": 400}},
	}
}

// timeline returns a panel of states over time.
func timeline(title, about, expr, legend string, words ...word) panel {
	return panel{
		kind: "state-timeline", title: title, about: about, unit: "none", width: 12, height: 7,
		queries:  []query{q(expr, legend)},
		defaults: object{"min": nil, "mappings": mappings(words), "custom": object{"fillOpacity": 70, "lineWidth": 0}},
		options: object{
			"mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8, "perPage": 10,
			"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": false}, "tooltip": object{"mode": "single"},
		},
	}
}

// word is the text and the colour of a value.
type word struct {
	value        int
	text, colour string
}

func mappings(words []word) []object {
	options := object{}
	for i, w := range words {
		options[strconv.Itoa(w.value)] = object{"text": w.text, "color": w.colour, "index": i}
	}
	return []object{{"type": "value", "options": options}}
}

func thresholds(base string, steps []step) object {
	list := []object{{"color": base, "value": nil}}
	for _, s := range steps {
		list = append(list, object{"color": s.colour, "value": s.from})
	}
	return object{"mode": "absolute", "steps": list}
}

// table returns a panel that joins instant queries by their labels. names are the
// titles of its columns: of labels, and of values as "Value #A" for the first query
// and so on. It is sorted by the column worst, highest first.
func table(title, about, worst string, names map[string]string, queries ...query) panel {
	for i := range queries {
		queries[i].instant, queries[i].format = true, "table"
	}
	include := object{}
	for column := range names {
		include[column] = true
	}
	return panel{
		kind: "table", title: title, about: about, unit: "short", width: 24, height: 9, queries: queries,
		defaults: object{"min": nil, "custom": object{"align": "auto", "filterable": true}},
		options:  object{"showHeader": true, "cellHeight": "sm", "footer": object{"show": false}, "sortBy": []object{{"displayName": worst, "desc": true}}},
		transformations: []object{
			{"id": "merge", "options": object{}},
			{"id": "organize", "options": object{"includeByName": include, "renameByName": names, "indexByName": object{}, "excludeByName": object{}}},
		},
	}
}

// heat returns a panel of the buckets of a histogram.
func heat(title, about, unit, expr string) panel {
	return panel{
		kind: "heatmap", title: title, about: about, unit: unit, width: 8, height: 8,
		queries:  []query{{expr: expr, legend: "{{le}}", format: "heatmap"}},
		defaults: object{"min": nil},
		options: object{
			"calculate": false, "yAxis": object{"unit": unit, "axisPlacement": "left"}, "cellGap": 1,
			"color":   object{"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
			"tooltip": object{"mode": "single", "showColorScale": false}, "legend": object{"show": true},
		},
	}
}

// sized sets the size of a panel.
func (p panel) sized(width, height int) panel {
	p.width, p.height = width, height
	return p
}

// empty sets the text of a panel without data.
func (p panel) empty(none string) panel {
	p.none = none
	return p
}

// words shows words instead of numbers.
func (p panel) words(words ...word) panel {
	p.defaults["mappings"] = mappings(words)
	return p
}
