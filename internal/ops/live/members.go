package live

import (
	"net/http"
	"slices"
	"time"

	"github.com/datafly/bridge/internal/ops"
)

// members are the processes of the deployment, and what each of them runs.
type members struct {
	Time            time.Time       `json:"time"`
	PeersConfigured bool            `json:"peers_configured"`
	Kafka           ops.KafkaLookUp `json:"kafka"`
	Members         []member        `json:"members"`
	// Unreported are members that Kafka knows and that no process reports.
	Unreported []unreported `json:"unreported"`
}

type member struct {
	ops.Peer
	Integrations []memberIntegration `json:"integrations"`
}

// memberIntegration is what one process does of an integration.
type memberIntegration struct {
	Integration string `json:"integration"`
	Name        string `json:"name"`
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	Partitions  int    `json:"partitions"`
}

type unreported struct {
	Integration string `json:"integration"`
	MemberID    string `json:"member_id"`
	ClientID    string `json:"client_id"`
	Host        string `json:"host"`
	Partitions  int    `json:"partitions"`
	Answering   *bool  `json:"answering"` // nil: nobody could ask it
}

// serveMembers shows the processes of the deployment.
func (p *Page) serveMembers(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Group == nil {
		fail(w, http.StatusNotFound, "this process does not look the group up")
		return
	}
	writeJSON(w, http.StatusOK, membersOf(p.cfg.Group(r.Context())))
}

func membersOf(g ops.GroupStatus) members {
	all := members{Time: g.Time, PeersConfigured: g.PeersConfigured, Kafka: g.Kafka, Members: []member{}, Unreported: []unreported{}}
	for _, peer := range g.Peers {
		all.Members = append(all.Members, member{Peer: peer, Integrations: []memberIntegration{}})
	}
	for _, i := range g.Integrations {
		for _, m := range i.Members {
			at := slices.IndexFunc(all.Members, func(have member) bool { return have.Address == m.Peer && m.Peer != "" })
			if at < 0 {
				all.Unreported = append(all.Unreported, unreported{Integration: i.Integration, MemberID: m.MemberID, ClientID: m.ClientID, Host: m.Host, Partitions: m.Partitions, Answering: m.Answering})
				continue
			}
			have := &all.Members[at].Integrations
			*have = append(*have, memberIntegration{Integration: i.Integration, Name: i.Name, State: m.State, Ready: m.Ready, Partitions: m.Partitions})
		}
	}
	return all
}
