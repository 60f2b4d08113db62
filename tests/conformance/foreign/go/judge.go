// Command judge answers questions about trees, notes and paths as Go's own code does.
//
// It reads one question a line, in JSON, and answers each with a line: yes or no. What is
// asked is what the package's own code was asked; whoever runs both compares the answers.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type question struct {
	Ask    string   `json:"ask"`
	Index  int64    `json:"index"`
	Size   int64    `json:"size"`
	Old    int64    `json:"old"`
	Leaf   string   `json:"leaf"`
	Root   string   `json:"root"`
	Before string   `json:"before"`
	Hashes []string `json:"hashes"`
	Vkey   string   `json:"vkey"`
	Text   string   `json:"text"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := judge(asked); err != nil {
			fmt.Println("no ", err)
		} else {
			fmt.Println("yes")
		}
	}
}

func judge(asked question) error {
	switch asked.Ask {
	case "inclusion":
		hashes, err := hashesOf(append(asked.Hashes, asked.Root, asked.Leaf)...)
		if err != nil {
			return err
		}
		last := len(hashes) - 2
		return tlog.CheckRecord(hashes[:last], asked.Size, hashes[last], asked.Index, hashes[last+1])
	case "consistency":
		hashes, err := hashesOf(append(asked.Hashes, asked.Root, asked.Before)...)
		if err != nil {
			return err
		}
		last := len(hashes) - 2
		return tlog.CheckTree(hashes[:last], asked.Size, hashes[last], asked.Old, hashes[last+1])
	case "note":
		verifier, err := note.NewVerifier(asked.Vkey)
		if err != nil {
			return err
		}
		_, err = note.Open([]byte(asked.Text), note.VerifierList(verifier))
		return err
	case "vkey":
		_, err := note.NewVerifier(asked.Vkey)
		return err
	case "path":
		// C2SP leaves the height out, and calls leaves entries.
		path := strings.Replace(asked.Text, "tile/", "tile/8/", 1)
		tile, err := tlog.ParseTilePath(strings.Replace(path, "/entries/", "/data/", 1))
		if err == nil && !strings.HasPrefix(asked.Text, "tile/") || strings.Contains(asked.Text, "data") {
			return fmt.Errorf("not C2SP's")
		}
		if err == nil && tile.L > 7 {
			return fmt.Errorf("no tree is so high")
		}
		return err
	}
	return fmt.Errorf("asked what is not known: %q", asked.Ask)
}

func hashesOf(texts ...string) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, text := range texts {
		var hash tlog.Hash
		content, err := hex.DecodeString(text)
		if err != nil || len(content) != tlog.HashSize {
			return nil, fmt.Errorf("not a hash: %q", text)
		}
		copy(hash[:], content)
		hashes = append(hashes, hash)
	}
	return hashes, nil
}
