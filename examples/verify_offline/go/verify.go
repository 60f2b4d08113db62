// Command verify checks evidence of a log with Go's own code for notes and trees.
//
// It knows nothing of the gateway: signatures come from golang.org/x/mod/sumdb/note, hashes
// and proofs from golang.org/x/mod/sumdb/tlog. What is here only takes files apart.
//
//	verify note VKEY CHECKPOINT
//	verify inclusion VKEY PROOF LEAF
//	verify consistency VKEY OLD-CHECKPOINT PROOF
//	verify folder VKEY FOLDER [OLD-CHECKPOINT]
//	verify hashes VKEY FOLDER [OLD-CHECKPOINT]
//	verify dataset VKEY FOLDER
//
// A folder is a log as C2SP's tlog-tiles lays it out: with folder, leaves and all; with hashes,
// without the leaves. A dataset is a folder that carries some leaves of a log, and the part of
// the tree that leads from them to a checkpoint.
// VKEY is a verifier key; more of them, joined by commas, must each have signed. It ends with
// 0 and a line beginning with ok, with 1 and a line beginning with fail, or with 2 where it was
// not asked properly.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	cosigner   = 4
)

func main() {
	said, err := run(os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Println("fail", err)
		os.Exit(1)
	}
	fmt.Println("ok  ", said)
}

var errUsage = errors.New("usage: verify note|inclusion|consistency|folder|hashes|dataset VKEY FILE ...")

func run(words []string) (string, error) {
	if len(words) < 3 {
		return "", errUsage
	}
	what, vkeys, files := words[0], strings.Split(words[1], ","), words[2:]
	switch {
	case what == "note" && len(files) == 1:
		return checkNote(vkeys, files[0])
	case what == "inclusion" && len(files) == 2:
		return checkInclusion(vkeys, files[0], files[1])
	case what == "consistency" && len(files) == 2:
		return checkConsistency(vkeys, files[0], files[1])
	case what == "dataset" && len(files) == 1:
		return checkDataset(vkeys, files[0])
	case (what == "folder" || what == "hashes") && len(files) <= 2:
		old := ""
		if len(files) == 2 {
			old = files[1]
		}
		if what == "hashes" {
			return checkHashes(vkeys, files[0], old)
		}
		return checkFolder(vkeys, files[0], old)
	}
	return "", errUsage
}

func checkNote(vkeys []string, path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(vkeys, content)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("checkpoint of %d leaves, root %v", tree.N, tree.Hash), nil
}

func checkInclusion(vkeys []string, proofFile, leafFile string) (string, error) {
	proof, err := os.ReadFile(proofFile)
	if err != nil {
		return "", err
	}
	leaf, err := os.ReadFile(leafFile)
	if err != nil {
		return "", err
	}
	lines, signed, err := split(proof)
	if err != nil {
		return "", err
	}
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return "", errors.New("not a tlog-proof@v1")
	}
	index, err := numberAfter("index ", lines[1])
	if err != nil {
		return "", err
	}
	hashes, err := hashesIn(lines[2:])
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
		return "", err
	}
	return fmt.Sprintf("leaf %d is one of %d leaves", index, tree.N), nil
}

func checkConsistency(vkeys []string, oldFile, proofFile string) (string, error) {
	old, err := os.ReadFile(oldFile)
	if err != nil {
		return "", err
	}
	proof, err := os.ReadFile(proofFile)
	if err != nil {
		return "", err
	}
	before, err := openCheckpoint(vkeys, old)
	if err != nil {
		return "", err
	}
	lines, signed, err := split(proof)
	if err != nil {
		return "", err
	}
	size, err := numberAfter("old ", lines[0])
	if err != nil {
		return "", err
	}
	hashes, err := hashesIn(lines[1:])
	if err != nil {
		return "", err
	}
	now, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	if size != before.N {
		return "", fmt.Errorf("the proof begins at %d leaves, the old checkpoint at %d", size, before.N)
	}
	if err := tlog.CheckTree(hashes, now.N, now.Hash, before.N, before.Hash); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d leaves grew into %d", before.N, now.N), nil
}

// checkFolder recomputes the whole log from its files: the root and every tile from the leaves,
// and the root once more from the tiles, as a client reads them.
func checkFolder(vkeys []string, folder, oldFile string) (string, error) {
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	stored, err := rebuild(folder, tree.N)
	if err != nil {
		return "", err
	}
	root, err := tlog.TreeHash(tree.N, stored)
	if err != nil {
		return "", err
	}
	if tree.N == 0 {
		// RFC 6962's root of nothing, which older releases of x/mod don't know.
		root = sha256.Sum256(nil)
	}
	if root != tree.Hash {
		return "", errors.New("the leaves lead to another root than the checkpoint's")
	}
	if err := compareTiles(folder, tree.N, stored); err != nil {
		return "", err
	}
	return walkTiles(vkeys, folder, tree, oldFile)
}

// checkHashes checks a folder that has no leaves: every tile is under the checkpoint.
func checkHashes(vkeys []string, folder, oldFile string) (string, error) {
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	return walkTiles(vkeys, folder, tree, oldFile)
}

// rebuild returns every hash of the tree, made from the leaves of the folder's entry bundles.
func rebuild(folder string, size int64) (storage, error) {
	var stored storage
	for first := int64(0); first < size; first += tileWidth {
		width := least(tileWidth, size-first)
		path := tilePath("entries", first/tileWidth, int(width))
		leaves, err := readEntries(filepath.Join(folder, path))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if int64(len(leaves)) != width {
			return nil, fmt.Errorf("%s holds %d leaves, not %d", path, len(leaves), width)
		}
		for at, leaf := range leaves {
			hashes, err := tlog.StoredHashes(first+int64(at), leaf, stored)
			if err != nil {
				return nil, err
			}
			stored = append(stored, hashes...)
		}
	}
	return stored, nil
}

// compareTiles checks that each tile of the folder is, byte for byte, what the leaves make of it.
func compareTiles(folder string, size int64, stored storage) error {
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		count := size >> (tileHeight * level)
		for first := int64(0); first < count; first += tileWidth {
			width := int(least(tileWidth, count-first))
			tile := tlog.Tile{H: tileHeight, L: level, N: first / tileWidth, W: width}
			made, err := tlog.ReadTileData(tile, stored)
			if err != nil {
				return err
			}
			path := tilePath(strconv.Itoa(level), tile.N, tile.W)
			kept, err := os.ReadFile(filepath.Join(folder, path))
			if err != nil {
				return err
			}
			if !bytes.Equal(kept, made) {
				return fmt.Errorf("%s is not what the leaves make of it", path)
			}
		}
	}
	return nil
}

// walkTiles reads every leaf hash through the tiles, each checked against those above it, and
// shows that an older checkpoint is a beginning of this one.
func walkTiles(vkeys []string, folder string, tree tlog.Tree, oldFile string) (string, error) {
	said := fmt.Sprintf("folder of %d leaves, root %v", tree.N, tree.Hash)
	reader := tlog.TileHashReader(tree, tiles{folder})
	for first := int64(0); first < tree.N; first += tileWidth {
		if _, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, first)}); err != nil {
			return "", err
		}
	}
	if oldFile == "" {
		return said, nil
	}
	signed, err := os.ReadFile(oldFile)
	if err != nil {
		return "", err
	}
	before, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	if before.N > tree.N {
		return "", fmt.Errorf("the folder has %d leaves, the old checkpoint %d", tree.N, before.N)
	}
	if before.N > 0 && before.N < tree.N {
		proof, err := tlog.ProveTree(tree.N, before.N, reader)
		if err != nil {
			return "", err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, before.N, before.Hash); err != nil {
			return "", err
		}
	}
	if before.N == tree.N && before.Hash != tree.Hash {
		return "", errors.New("two checkpoints of one size have different roots")
	}
	return fmt.Sprintf("%s, grown from %d", said, before.N), nil
}

// checkDataset checks that every receipt of a dataset, and every statement about keys, is a leaf
// of the log at the place that the dataset says.
func checkDataset(vkeys []string, folder string) (string, error) {
	evidence := filepath.Join(folder, "evidence")
	signed, err := os.ReadFile(filepath.Join(evidence, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(vkeys, signed)
	if err != nil {
		return "", err
	}
	indexes, err := indexesIn(filepath.Join(folder, "receipts.jsonl"))
	if err != nil {
		return "", err
	}
	leaves, err := readEntries(filepath.Join(evidence, "leaves"))
	if err != nil {
		return "", err
	}
	if len(leaves) != len(indexes) {
		return "", fmt.Errorf("%d leaves for %d receipts", len(leaves), len(indexes))
	}
	touched, err := readTouched(filepath.Join(evidence, "tiles"), indexes, tree.N)
	if err != nil {
		return "", err
	}
	if err := checkPlaces(tree, touched, indexes, leaves); err != nil {
		return "", err
	}
	above, err := checkAbove(filepath.Join(evidence, "above"), tree)
	if err != nil {
		return "", err
	}
	keys, err := checkKeys(filepath.Join(evidence, "keys.jsonl"), tree)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d leaves of rows, %d above and %d key statements are among %d leaves", len(indexes), above, keys, tree.N), nil
}

// checkPlaces checks that each leaf stands in the tree where it is said to.
func checkPlaces(tree tlog.Tree, touched touched, indexes []int64, leaves [][]byte) error {
	reader := tlog.TileHashReader(tree, touched)
	for at, index := range indexes {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		if hashes[0] != tlog.RecordHash(leaves[at]) {
			return fmt.Errorf("leaf %d is another one", index)
		}
	}
	return nil
}

// checkAbove checks every leaf above derived rows, and returns how many there are.
func checkAbove(folder string, tree tlog.Tree) (int, error) {
	content, err := os.ReadFile(filepath.Join(folder, "leaves"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var indexes []int64
	var leaves [][]byte
	last := int64(-1)
	for len(content) > 0 {
		if len(content) < 10 {
			return 0, errors.New("above ends within a length")
		}
		index := int64(binary.BigEndian.Uint64(content))
		length := int(binary.BigEndian.Uint16(content[8:]))
		if index <= last || index >= tree.N || len(content) < 10+length {
			return 0, errors.New("above is out of order, or ends within a leaf")
		}
		indexes, leaves = append(indexes, index), append(leaves, content[10:10+length])
		content, last = content[10+length:], index
	}
	touched, err := readTouched(filepath.Join(folder, "tiles"), indexes, tree.N)
	if err != nil {
		return 0, err
	}
	return len(indexes), checkPlaces(tree, touched, indexes, leaves)
}

// indexesIn returns the leaf index of each receipt that rows name, in order, each once.
func indexesIn(path string) ([]int64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var indexes []int64
	last := int64(-1)
	for _, line := range linesOf(content) {
		said := struct {
			Index *int64 `json:"index"`
		}{}
		if err := json.Unmarshal(line, &said); err != nil {
			return nil, err
		}
		if said.Index == nil || *said.Index < last {
			return nil, errors.New("receipts.jsonl is out of order")
		}
		if *said.Index > last {
			indexes = append(indexes, *said.Index)
			last = *said.Index
		}
	}
	return indexes, nil
}

// checkKeys checks the inclusion proof of each line, and returns how many there are.
func checkKeys(path string, tree tlog.Tree) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	lines := linesOf(content)
	for _, line := range lines {
		said := struct {
			Hashes []string `json:"hashes"`
			Index  int64    `json:"index"`
			Leaf   []byte   `json:"leaf"`
		}{}
		if err := json.Unmarshal(line, &said); err != nil {
			return 0, err
		}
		hashes, err := hashesIn(said.Hashes)
		if err != nil {
			return 0, err
		}
		if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, said.Index, tlog.RecordHash(said.Leaf)); err != nil {
			return 0, fmt.Errorf("key statement at leaf %d: %w", said.Index, err)
		}
	}
	return len(lines), nil
}

func linesOf(content []byte) [][]byte {
	return bytes.Split(bytes.TrimSuffix(content, []byte("\n")), []byte("\n"))
}

// readTouched returns the tiles of each level that the leaves touch: they stand one behind the
// other in the level's file, and the tile at the right edge of the tree is always the last.
func readTouched(folder string, indexes []int64, size int64) (touched, error) {
	found := touched{}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		content, err := os.ReadFile(filepath.Join(folder, strconv.Itoa(level)))
		if err != nil {
			return nil, err
		}
		count := size >> (tileHeight * level)
		edge := count / tileWidth
		last := int64(-1)
		take := func(number int64) error {
			width := least(tileWidth, count-number*tileWidth)
			if width <= 0 || number == last {
				return nil
			}
			if int64(len(content)) < width*tlog.HashSize {
				return fmt.Errorf("the tiles of level %d end too early", level)
			}
			tile := tlog.Tile{H: tileHeight, L: level, N: number, W: int(width)}
			found[tile], content = content[:width*tlog.HashSize], content[width*tlog.HashSize:]
			last = number
			return nil
		}
		for _, index := range indexes {
			if err := take(index >> (tileHeight * (level + 1))); err != nil {
				return nil, err
			}
		}
		if err := take(edge); err != nil {
			return nil, err
		}
		if len(content) != 0 {
			return nil, fmt.Errorf("the tiles of level %d are more than the leaves touch", level)
		}
	}
	return found, nil
}

// touched holds some tiles of a log.
type touched map[tlog.Tile][]byte

func (t touched) Height() int { return tileHeight }

func (t touched) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		content, ok := t[tile]
		if !ok {
			return nil, fmt.Errorf("the dataset carries no %s", tilePath(strconv.Itoa(tile.L), tile.N, tile.W))
		}
		found = append(found, content)
	}
	return found, nil
}

func (t touched) SaveTiles([]tlog.Tile, [][]byte) {}

// storage holds hashes where tlog.StoredHashIndex says.
type storage []tlog.Hash

func (s storage) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for at, index := range indexes {
		if index >= int64(len(s)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		found[at] = s[index]
	}
	return found, nil
}

// tiles reads a folder as tlog.TileHashReader asks for it.
type tiles struct{ folder string }

func (t tiles) Height() int { return tileHeight }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		content, err := os.ReadFile(filepath.Join(t.folder, tilePath(strconv.Itoa(tile.L), tile.N, tile.W)))
		if err != nil {
			return nil, err
		}
		found = append(found, content)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// tilePath is C2SP's form of x/mod's: without the height, and with `entries` for leaves.
func tilePath(level string, number int64, width int) string {
	modulePath := tlog.Tile{H: tileHeight, L: 0, N: number, W: width}.Path()
	return "tile/" + level + strings.TrimPrefix(modulePath, "tile/8/0")
}

func readEntries(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var leaves [][]byte
	for len(content) > 0 {
		if len(content) < 2 {
			return nil, errors.New("ends within a length")
		}
		length := int(binary.BigEndian.Uint16(content))
		if len(content) < 2+length {
			return nil, errors.New("ends within a leaf")
		}
		leaves = append(leaves, content[2:2+length])
		content = content[2+length:]
	}
	return leaves, nil
}

// openCheckpoint returns the tree of a checkpoint that each of the verifier keys signed; the
// first is the log's, whose name is the origin.
func openCheckpoint(vkeys []string, signed []byte) (tlog.Tree, error) {
	var origin string
	var text string
	for at, vkey := range vkeys {
		verifier, err := newVerifier(vkey)
		if err != nil {
			return tlog.Tree{}, err
		}
		if at == 0 {
			origin = verifier.Name()
		}
		opened, err := note.Open(signed, note.VerifierList(verifier))
		if err != nil {
			return tlog.Tree{}, err
		}
		text = opened.Text
	}
	lines := strings.SplitN(text, "\n", 2)
	if lines[0] != origin {
		return tlog.Tree{}, fmt.Errorf("the checkpoint is of %q, not of %q", lines[0], origin)
	}
	// Below its first line a checkpoint is written as the tree of Go's own checksum database.
	return tlog.ParseTree([]byte("go.sum database tree\n" + lines[1]))
}

// newVerifier knows, besides x/mod's log keys, the keys of witnesses: type 4, whose signature
// begins with a time that it covers.
func newVerifier(vkey string) (note.Verifier, error) {
	verifier, err := note.NewVerifier(vkey)
	if err == nil {
		return verifier, nil
	}
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, err
	}
	key, broken := base64.StdEncoding.DecodeString(parts[2])
	if broken != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != cosigner {
		return nil, err
	}
	id, broken := strconv.ParseUint(parts[1], 16, 32)
	if broken != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if uint32(id) != binary.BigEndian.Uint32(sum[:]) {
		return nil, errors.New("the key id does not match the key")
	}
	return witness{parts[0], uint32(id), key[1:]}, nil
}

type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }

func (w witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	when := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", when, text)
	return ed25519.Verify(w.key, []byte(message), signature[8:])
}

// split parts the lines of a proof from the signed checkpoint that follows an empty line.
func split(proof []byte) ([]string, []byte, error) {
	at := bytes.Index(proof, []byte("\n\n"))
	if at < 0 {
		return nil, nil, errors.New("the proof carries no checkpoint")
	}
	return strings.Split(string(proof[:at]), "\n"), proof[at+2:], nil
}

func numberAfter(word, line string) (int64, error) {
	text := strings.TrimPrefix(line, word)
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text == line || strconv.FormatInt(number, 10) != text || number < 0 {
		return 0, fmt.Errorf("expected %q and a number, found %q", word, line)
	}
	return number, nil
}

func hashesIn(lines []string) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

func least(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
