// Judges a ledger with Go's own sumdb code: the signed note, inclusion, consistency, and every tile.
//
//	judge VKEY OLD-NOTE NEW-NOTE PROOF LEAF CONSISTENCY LEDGER
//
// Exits 0 and prints the tree size if all of it holds.
package main

import (
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func read(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	return data
}

func hash(line string) (h tlog.Hash) {
	data, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(data) != len(h) {
		log.Fatalf("not a hash: %q", line)
	}
	copy(h[:], data)
	return h
}

func hashes(lines []string) (found []tlog.Hash) {
	for _, line := range lines {
		if line != "" {
			found = append(found, hash(line))
		}
	}
	return found
}

// tree verifies a checkpoint note and returns what it commits to.
func tree(verifier note.Verifier, data []byte) tlog.Tree {
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		log.Fatalf("note: %v", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		log.Fatalf("origin %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return tlog.Tree{N: size, Hash: hash(lines[2])}
}

// ledger reads C2SP tiles, whose paths lack the height that Go's own layout has.
type ledger string

func (ledger) Height() int { return 8 }

func (l ledger) ReadTiles(tiles []tlog.Tile) (found [][]byte, err error) {
	for _, t := range tiles {
		path := "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
		found = append(found, read(filepath.Join(string(l), path)))
	}
	return found, nil
}

func (ledger) SaveTiles([]tlog.Tile, [][]byte) {}

func main() {
	log.SetFlags(0)
	arg := os.Args
	verifier, err := note.NewVerifier(arg[1])
	if err != nil {
		log.Fatalf("vkey: %v", err)
	}
	older, newer := tree(verifier, read(arg[2])), tree(verifier, read(arg[3]))

	head, checkpoint, _ := strings.Cut(string(read(arg[4])), "\n\n")
	lines := strings.Split(head, "\n")
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil || lines[0] != "c2sp.org/tlog-proof@v1" {
		log.Fatal("not a tlog-proof")
	}
	proven := tree(verifier, []byte(checkpoint))
	leaf := tlog.RecordHash(read(arg[5]))
	if err := tlog.CheckRecord(hashes(lines[2:]), proven.N, proven.Hash, index, leaf); err != nil {
		log.Fatalf("inclusion: %v", err)
	}
	consistency := hashes(strings.Split(string(read(arg[6])), "\n"))
	if err := tlog.CheckTree(consistency, newer.N, newer.Hash, older.N, older.Hash); err != nil {
		log.Fatalf("consistency: %v", err)
	}

	reader := tlog.TileHashReader(newer, ledger(arg[7]))
	for n := int64(0); n < newer.N; n++ {
		if _, err := tlog.ProveRecord(newer.N, n, reader); err != nil {
			log.Fatalf("tiles at %d: %v", n, err)
		}
	}
	ours, err := tlog.ProveTree(newer.N, older.N, reader)
	if err != nil || fmt.Sprint(ours) != fmt.Sprint(tlog.TreeProof(consistency)) {
		log.Fatalf("Go would prove consistency differently: %v", err)
	}
	fmt.Println(newer.N)
}
