// Names, adjectives, nouns and their compounds.
#include "eval/words.h"

#include <array>

namespace bough::eval {
namespace {

constexpr std::array<std::string_view, 128> names = {
    "Adam",    "Alan",      "Albert",   "Alice",   "Amanda",    "Amy",       "Andrew",   "Angela",  "Anna",     "Anthony", "Arthur",
    "Barbara", "Beatrice",  "Benjamin", "Bernard", "Betty",     "Brenda",    "Brian",    "Bruce",   "Bruno",    "Carla",   "Carol",
    "Charles", "Christine", "Clara",    "Conrad",  "Daniel",    "David",     "Deborah",  "Dennis",  "Diana",    "Donald",  "Dorothy",
    "Douglas", "Duncan",    "Edith",    "Edmund",  "Edward",    "Elizabeth", "Emma",     "Eric",    "Esther",   "Ethan",   "Eugene",
    "Felix",   "Fiona",     "Florence", "Frances", "Frederick", "Gabriel",   "George",   "Gerald",  "Gloria",   "Gordon",  "Grace",
    "Gregory", "Hannah",    "Harold",   "Harvey",  "Heather",   "Helen",     "Henry",    "Howard",  "Hugo",     "Irene",   "Isaac",
    "Ivan",    "Jacob",     "James",    "Janet",   "Jasmine",   "Jeffrey",   "Jennifer", "Joan",    "Joel",     "Judith",  "Julia",
    "Justin",  "Karen",     "Keith",    "Kenneth", "Laura",     "Lawrence",  "Leonard",  "Linda",   "Louis",    "Lucy",    "Margaret",
    "Martha",  "Matthew",   "Melissa",  "Michael", "Miriam",    "Monica",    "Nancy",    "Nathan",  "Nicholas", "Oliver",  "Oscar",
    "Pamela",  "Patrick",   "Paula",    "Peter",   "Philip",    "Rachel",    "Raymond",  "Rebecca", "Richard",  "Robert",  "Roger",
    "Ronald",  "Ruth",      "Samuel",   "Sandra",  "Sarah",     "Sharon",    "Simon",    "Sophie",  "Stephen",  "Susan",   "Teresa",
    "Thomas",  "Timothy",   "Victor",   "Vincent", "Violet",    "Walter",    "William",
};

// No adjective ends as another one does in full, no noun begins so: then no compound is a part of another.
constexpr std::array<std::string_view, 160> adjectives = {
    "able",   "amber",   "ancient", "ample",   "basic",  "bitter", "blank",  "blue",   "bold",    "brave",   "brief",    "bright", "broad",
    "bronze", "calm",    "clever",  "cloudy",  "coarse", "cold",   "common", "copper", "crimson", "curious", "damp",     "dark",   "decent",
    "deep",   "distant", "double",  "dry",     "dusty",  "eager",  "early",  "elder",  "empty",   "even",    "faint",    "famous", "fancy",
    "fast",   "fierce",  "final",   "firm",    "flat",   "fluid",  "foggy",  "formal", "fresh",   "frozen",  "gentle",   "giant",  "glad",
    "golden", "grand",   "green",   "grim",    "happy",  "hasty",  "heavy",  "hidden", "hollow",  "honest",  "humble",   "icy",    "idle",
    "ivory",  "jolly",   "keen",    "kind",    "large",  "late",   "lively", "local",  "lone",    "loud",    "loyal",    "lucky",  "lunar",
    "major",  "mellow",  "mild",    "minor",   "misty",  "modern", "narrow", "neat",   "noble",   "olive",   "orange",   "pale",   "plain",
    "polite", "prime",   "proud",   "purple",  "quick",  "quiet",  "rapid",  "rare",   "rich",    "rigid",   "rough",    "round",  "royal",
    "rural",  "rustic",  "sacred",  "scarlet", "secret", "sharp",  "shiny",  "short",  "silent",  "silver",  "simple",   "sleepy", "slim",
    "smooth", "solar",   "solid",   "spare",   "stark",  "steady", "steep",  "stern",  "still",   "stormy",  "strict",   "strong", "subtle",
    "sudden", "sunny",   "swift",   "tall",    "tame",   "tender", "thick",  "tidy",   "tiny",    "tough",   "tranquil", "upper",  "urban",
    "vague",  "vast",    "velvet",  "violet",  "vivid",  "warm",   "wary",   "weary",  "white",   "wide",    "wild",     "windy",  "wise",
    "witty",  "wooden",  "yellow",  "young",
};

constexpr std::array<std::string_view, 200> nouns = {
    "acorn",      "anchor",  "apple",  "arrow",    "badge",    "bakery", "banjo",   "barrel",  "basket",  "beacon",  "bell",    "berry",
    "blanket",    "boat",    "bottle", "branch",   "bridge",   "brook",  "brush",   "bucket",  "button",  "cabin",   "cable",   "camel",
    "candle",     "canoe",   "canyon", "carpet",   "castle",   "cellar", "chapel",  "cherry",  "chisel",  "circle",  "clock",   "cloud",
    "comet",      "compass", "copper", "coral",    "cottage",  "cradle", "crystal", "curtain", "desert",  "diamond", "dolphin", "donkey",
    "dragon",     "drum",    "eagle",  "elbow",    "engine",   "falcon", "farmer",  "feather", "fence",   "ferry",   "fiddle",  "field",
    "flag",       "flute",   "forest", "fountain", "fox",      "garden", "gate",    "glacier", "glove",   "goose",   "grape",   "guitar",
    "hammer",     "harbor",  "hazel",  "helmet",   "heron",    "hill",   "honey",   "horse",   "hotel",   "island",  "ivory",   "jacket",
    "jewel",      "jungle",  "kettle", "kitchen",  "ladder",   "lagoon", "lake",    "lamp",    "lantern", "lemon",   "letter",  "library",
    "lighthouse", "lily",    "lion",   "lizard",   "locket",   "lodge",  "magnet",  "mango",   "maple",   "market",  "meadow",  "medal",
    "mill",       "mirror",  "mitten", "monkey",   "mountain", "museum", "needle",  "nest",    "nickel",  "oak",     "ocean",   "onion",
    "orbit",      "orchard", "otter",  "owl",      "paddle",   "palace", "panther", "parrot",  "pebble",  "pencil",  "pepper",  "piano",
    "pigeon",     "pillow",  "pine",   "planet",   "plum",     "pocket", "pond",    "pony",    "potato",  "prairie", "puzzle",  "pyramid",
    "quarry",     "quilt",   "rabbit", "raft",     "raven",    "ribbon", "river",   "robin",   "rocket",  "saddle",  "sailor",  "salmon",
    "sandal",     "scarf",   "school", "shell",    "shelf",    "ship",   "shovel",  "sparrow", "spider",  "spoon",   "spring",  "stable",
    "statue",     "stone",   "stove",  "summit",   "swan",     "table",  "tailor",  "temple",  "thimble", "thunder", "tiger",   "torch",
    "tower",      "trail",   "train",  "trumpet",  "tulip",    "tunnel", "turtle",  "valley",  "vessel",  "village", "violin",  "walnut",
    "water",      "whale",   "wheel",  "willow",   "window",   "winter", "wolf",    "zebra",
};

std::string_view at(std::span<const std::string_view> words, int64_t index) { return words[static_cast<size_t>(index)]; }

constexpr auto adjective_count = static_cast<int64_t>(adjectives.size());
constexpr auto noun_count = static_cast<int64_t>(nouns.size());

}  // namespace

std::span<const std::string_view> first_names() { return names; }

int64_t word_pairs() { return adjective_count * noun_count; }

std::string word_pair(int64_t index) {
  return std::string(at(adjectives, index / noun_count)) + "-" + std::string(at(nouns, index % noun_count));
}

int64_t word_triples() { return adjective_count * word_pairs(); }

std::string word_triple(int64_t index) { return std::string(at(adjectives, index / word_pairs())) + "-" + word_pair(index % word_pairs()); }

}  // namespace bough::eval
