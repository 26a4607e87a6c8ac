"""The plots: each is a list of paragraphs, each paragraph a list of slots, each slot a choice of sentences.

In braces: H the hero, he/him/his/He/His the hero's pronouns, kind what the hero is; F, fhe, fhim, fhis and
fkind the same for the friend; friend the friend's introduction ("a shy bear named Otto"), Friend with a
capital; elder "the old owl" (Elder with a capital, an_elder when first met); thing "red kite", noun "kite";
spot, home, hobby, food, and per plot the variables that its `choices` bind together. Slots are independent:
every sentence of a slot must fit every sentence of its neighbours. One table, hence past the
line budget of other files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from words import BREAKABLE, BUILDS, FEARS, FLOWERS, GIFTS, HOLLOW

Slot = tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """One plot skeleton. `topics` are what a user may ask for; `choices` binds variables row by row."""

    name: str
    topics: tuple[str, ...]
    paragraphs: tuple[tuple[Slot, ...], ...]
    names: tuple[str, ...] = ()
    choices: tuple[tuple[str, ...], ...] = field(default=())
    things: tuple[str, ...] = ()  # the nouns that fit, where not every thing does
    uses_thing: bool = False
    uses_food: bool = False


PLOTS: tuple[Plot, ...] = (
    Plot(
        "lost",
        ("a lost {noun}", "losing something", "finding a {noun}"),
        (
            (
                (
                    "{H} had a {thing} and took it everywhere.",
                    "The best thing {he} owned was a {thing}.",
                    "For {his} birthday, {H} had been given a {thing}.",
                ),
                (
                    "But one morning, the {noun} was gone.",
                    "One day, {he} looked around and could not see the {noun}.",
                    "Then, on the way home, {he} lost it.",
                ),
                (
                    '"Oh no," said {H}. "Where is my {noun}?"',
                    '"Where can my {noun} be?" cried {H}.',
                    "{H} felt so sad that {he} sat down and cried a little.",
                ),
            ),
            (
                (
                    "{He} looked under the bed and behind the door, but it was not there.",
                    "{He} looked high and low, but found nothing.",
                    "{He} looked near {spot}, but there was nothing but leaves.",
                ),
                (
                    "Then {he} met {friend}.",
                    "Soon {friend} came by.",
                    "{Friend} heard {him} and came to help.",
                ),
                (
                    '"Do not worry," said {F}. "We will look for it together."',
                    '"Let me help you," said {F}. "Four eyes see more than two."',
                    '"When did you last see it?" asked {F}.',
                ),
                (
                    "They went {way}, and there was the {thing}, {where}.",
                    "They walked {way} and looked carefully. At last they saw the {thing} {where}.",
                ),
            ),
            (
                (
                    '"You found it! Thank you, {F}," said {H}.',
                    "{H} hugged the {noun} and then {he} hugged {F}.",
                    "{H} jumped for joy and thanked {F} again and again.",
                ),
                (
                    "From that day on, {H} took good care of the {noun}.",
                    "After that, {H} always put the {noun} back in its place.",
                    "{H} still has the {noun} today, and {F} is still {his} friend.",
                ),
                (
                    "And {he} learned that a problem is smaller when two look at it.",
                    "{H} was happy, for {he} had found a friend as well.",
                    "A good friend, {he} thought, is better than any {noun}.",
                ),
            ),
        ),
        ("way", "where"),
        (
            ("to the river", "lying on a flat stone"),
            ("along the path", "under a bush"),
            ("back to the garden", "behind the flower pots"),
            ("into the woods", "hanging on a branch"),
            ("around the house", "on top of the wood pile"),
            ("down the hill", "in the tall grass"),
            ("to the market", "under the baker's table"),
        ),
        uses_thing=True,
    ),
    Plot(
        "friend",
        ("making a new friend", "friendship", "a new friend", "being lonely"),
        (
            (
                (
                    "But {H} had nobody to play with.",
                    "Still, {H} often felt lonely.",
                    "{H} wished for just one thing: a friend.",
                ),
                (
                    "One day, {he} went for a walk to {spot}.",
                    "One afternoon, {he} walked all the way to {spot}.",
                    "One morning, {he} heard a small sound near {spot}.",
                ),
            ),
            (
                ("There {he} met {friend}.", "There sat {friend}, all alone.", "{Friend} was sitting there."),
                ("{F} was {mood}.", "{F} looked up and was {mood}."),
                ('"Hello," said {H}. "{ask}"', '{H} took a deep breath and said, "{ask}"'),
                (
                    '"Oh yes," said {F}. "I would like that very much."',
                    '{F} smiled. "Yes, please," said {F}.',
                    '"Nobody ever asked me that before," said {F}. "Yes!"',
                ),
                ("So they {play} until the sun went down.", "All afternoon, they {play} and laughed."),
            ),
            (
                (
                    '"Will you come again tomorrow?" asked {F}. "Of course," said {H}.',
                    '"See you tomorrow," said {H}, and {F} waved for a long time.',
                    "When it was time to go home, they promised to meet again.",
                ),
                (
                    "From that day on, {H} was never lonely again.",
                    "Now {H} and {F} meet at {spot} every day.",
                    "{H} went home with a warm feeling inside.",
                ),
                (
                    "{He} had learned that a friend may be only one hello away.",
                    "Sometimes all it takes is to say hello.",
                    "And {hobby} was much more fun with a friend.",
                ),
            ),
        ),
        ("mood", "ask", "play"),
        (
            ("too shy to speak", "Do you want to play with me?", "played with a ball"),
            ("new in that place", "Shall I show you the way around?", "looked at every tree and stone"),
            ("a little sad", "Would you like to sit with me?", "told each other stories"),
            ("very hungry", "Would you like half of my bread?", "sat in the sun and ate"),
            ("trying to fly a kite", "May I hold the string for you?", "flew the kite"),
            ("building a tower of stones", "Can I help you build it?", "built the tallest tower"),
        ),
    ),
    Plot(
        "storm",
        ("a storm", "the rain", "a stormy night", "bad weather"),
        (
            (
                (
                    "One evening, dark clouds came over the hills.",
                    "One day, the sky turned grey and then black.",
                    "One night, the wind began to howl.",
                ),
                (
                    "Rain fell in big drops, and the trees bent low.",
                    "Soon the rain was beating on the roof.",
                    "There was a flash of light and a loud boom.",
                ),
                (
                    "{H} hid under a blanket.",
                    "{H} closed the window and listened.",
                    "{H} was glad to be at home and dry.",
                ),
            ),
            (
                (
                    "Then {he} heard a knock at the door.",
                    "Then there was a small voice outside.",
                    "Suddenly someone called for help.",
                ),
                ("It was {friend}, wet from head to toe.", "Outside stood {friend}, cold and wet."),
                (
                    '"My home is full of water," said {F}. "May I stay here?"',
                    '"The wind took my roof away," said {F}. "I have no place to go."',
                    '"I lost my way in the storm," said {F}. "Please let me in."',
                ),
                (
                    '"Come in, come in," said {H}. "There is room for two."',
                    '"Of course," said {H}. "You can sit by the fire."',
                ),
                ("{H} gave {F} a dry blanket and {food}.", "{H} made some tea and put {food} on the table."),
                (
                    "They sang songs to make the storm seem small.",
                    "They told stories until the thunder went away.",
                    "Together they were not afraid at all.",
                ),
            ),
            (
                (
                    "In the morning, the sun came out and a rainbow stood over the fields.",
                    "When they woke up, the storm was over and the world was shining.",
                ),
                (
                    "{H} helped {F} to mend what the storm had broken.",
                    "Then they went out together to jump over the puddles.",
                    '"Thank you, {H}," said {F}. "You have a big heart."',
                ),
                (
                    "And whenever it rained, they sat by the fire together.",
                    "{H} was not afraid of storms any more.",
                    "Even the worst storm ends, and a kind deed is never forgotten.",
                ),
            ),
        ),
        uses_food=True,
    ),
    Plot(
        "sharing",
        ("sharing", "sharing food", "being generous", "learning to share"),
        (
            (
                (
                    "One day, {H} had {food}.",
                    "One morning, {an_elder} gave {H} {food}.",
                    "For lunch, {H} had {food}.",
                ),
                (
                    '"This is all for me," said {H}.',
                    '"I will eat it all by myself," thought {H}.',
                    "It smelled so good that {H} could hardly wait.",
                ),
                ("{He} sat down near {spot} to eat.", "{He} carried it to {spot}, where it was quiet."),
            ),
            (
                ("Then {friend} came along the path.", "Just then, {friend} walked by."),
                (
                    '"I have not eaten all day," said {F} softly.',
                    '"That looks wonderful," said {F}. "I have nothing to eat."',
                    "{F} said nothing, but looked very hungry.",
                ),
                (
                    "{H} looked at the food, and then at {F}.",
                    "At first, {H} wanted to turn away.",
                    "{H} thought about it for a moment.",
                ),
                ('"Sit down," {he} said. "We can share."', '"Here," said {H}. "Half of it is for you."'),
                (
                    "They ate together, and it tasted better than ever.",
                    "They ate and laughed, and soon not a crumb was left.",
                ),
            ),
            (
                ("The next day, {F} came back with {gift}.", "A few days later, {F} brought {H} {gift}."),
                (
                    '"This is for you," said {F}, "because you shared with me."',
                    '"Now it is my turn to share," said {F}.',
                ),
                (
                    "{H} smiled, for {he} had found a friend.",
                    "From then on, they shared everything they had.",
                ),
                (
                    "What you share, {he} learned, comes back to you.",
                    "{H} never wanted to eat alone again.",
                    "Half a meal with a friend is better than a whole one alone.",
                ),
            ),
        ),
        ("gift",),
        tuple((g,) for g in GIFTS if g != "a song"),
        uses_food=True,
    ),
    Plot(
        "trip",
        ("a trip", "a journey", "an adventure", "travelling to {goal}"),
        (
            (
                (
                    "One day, {H} decided to see {goal}.",
                    "{H} had always wanted to see {goal}.",
                    'One morning, {H} said, "Today I will go and see {goal}."',
                ),
                (
                    "{He} packed {food} and set off.",
                    "{He} put {food} in a bag and closed the door.",
                ),
                (
                    "The road was long and full of stones.",
                    "The road went up and down and around.",
                    "{He} walked and walked, past {spot} and over the fields.",
                ),
            ),
            (
                ("On the way, {he} met {friend}.", "At a crossing, {he} found {friend} sitting on a stone."),
                (
                    '"Where are you going?" asked {F}. "To see {goal}," said {H}.',
                    '"I am going to see {goal}," said {H}. "Do you know the way?"',
                ),
                (
                    '"I want to see that too," said {F}. "Let us go together."',
                    '"I can show you the way," said {F}, and off they went.',
                ),
                (
                    "When {H} was tired, {F} told funny stories.",
                    "They crossed a river on a fallen tree.",
                    "At night, they slept under the stars.",
                ),
                ("At last they came to the end of the road.", "After a long time, they reached the place."),
                ("There it was: {goal}, {look}.", "And there they saw {goal}, {look}."),
            ),
            (
                (
                    '"It is even better than I dreamed," said {H}.',
                    "{H} could not say a word, it was so beautiful.",
                    "They sat and looked until evening came.",
                ),
                (
                    "When {H} came home, {he} told everyone about it.",
                    "Then they walked home, singing all the way.",
                ),
                (
                    "But the best part of the trip was the friend {he} had made.",
                    "{He} was tired and happy, and glad to be back {home}.",
                    "The world is big, {he} thought, but home is the best place in it.",
                ),
            ),
        ),
        ("goal", "look"),
        (
            ("the sea", "blue and wide"),
            ("the snow on the mountain", "white and shining"),
            ("the great city", "full of lights"),
            ("the tallest tree", "so tall that it touched the clouds"),
            ("the big waterfall", "roaring like a lion"),
            ("the desert", "golden in the sun"),
            ("the field of a thousand flowers", "bright as a rainbow"),
            ("the end of the river", "where the water met the sky"),
        ),
        uses_food=True,
    ),
    Plot(
        "fear",
        ("being brave", "being afraid of {fear}", "a small fear", "courage"),
        (
            (
                (
                    "But {H} had one secret: {he} was afraid of {fear}.",
                    "There was only one problem. {H} was afraid of {fear}.",
                ),
                (
                    "{He} never told anyone about it.",
                    "The others did not know.",
                    "{He} did not like to talk about it.",
                ),
            ),
            (
                ("One day, {H} was out with {friend}.", "One evening, {he} went to {spot} with {friend}."),
                ("Suddenly, {event}.", "Then {event}."),
                (
                    "{H} stood still and began to shake.",
                    "{H} wanted to run away.",
                    "The heart of {H} beat like a drum.",
                ),
                (
                    '"What is wrong?" asked {F}. "I am afraid of {fear}," said {H} in a small voice.',
                    '"I cannot do it," said {H}. "I am afraid of {fear}."',
                ),
                (
                    '"I am afraid sometimes too," said {F}. "Hold my hand."',
                    '"That is all right," said {F}. "Let us count to three together."',
                    '"Take one small step," said {F}. "I will stay with you."',
                ),
                (
                    "So {H} took a deep breath. One, two, three!",
                    "{H} closed {his} eyes, and then {he} opened them again.",
                    "Slowly, {H} took one step, and then another.",
                ),
            ),
            (
                ("And then {he} saw that {truth}.", "To {his} surprise, {truth}."),
                (
                    '"I did it!" shouted {H}.',
                    '"Look at me!" called {H}, and {F} clapped.',
                    "{H} laughed out loud.",
                ),
                (
                    "From that day on, {H} was not so afraid of {fear}.",
                    "{H} was proud, and {F} was proud too.",
                ),
                (
                    "To be brave, {he} learned, is to be afraid and to try it anyway.",
                    "A fear gets smaller when you tell it to a friend.",
                    "That night, {H} slept very well.",
                ),
            ),
        ),
        ("fear", "event", "truth"),
        FEARS,
    ),
    Plot(
        "surprise",
        ("a surprise", "a birthday", "a birthday party", "a present"),
        (
            (
                ("It was almost the birthday of {friend}.", "{Friend} was going to have a birthday soon."),
                ("{H} wanted to give {F} {gift}.", '"I will make {gift} for {F}," said {H}.'),
                (
                    "But it had to be a secret.",
                    "Nobody was to know about it.",
                    '"It must be a surprise," {he} whispered.',
                ),
            ),
            (
                (
                    "Every evening, {H} worked on it behind a closed door.",
                    "For three days, {H} worked on it near {spot}.",
                ),
                (
                    '"What are you doing?" asked {F}. "Oh, nothing," said {H}.',
                    "When {F} came by, {H} hid everything quickly.",
                    '"Why have you no time to play?" asked {F}. {H} only smiled.',
                ),
                (
                    "{F} was a little sad. Had {H} forgotten the day?",
                    "{F} began to think that {H} did not like {fhim} any more.",
                ),
                (
                    "On the morning of the birthday, {F} found a note at the door.",
                    "Then the great day came, and {F} got a small letter.",
                ),
                ('"Come to {spot}," it said.', 'It said, "Follow the path to {spot}."'),
            ),
            (
                (
                    '"Surprise!" called {H}, and all their friends jumped up.',
                    'There stood {H} with all their friends. "Surprise!" they shouted.',
                ),
                ("{H} gave {F} {gift}.", "And in the middle was {H} with {gift}."),
                (
                    '"You did not forget me," said {F}, and had tears in {fhis} eyes.',
                    '"This is the best birthday ever," said {F}.',
                ),
                (
                    "They danced and ate cake until the moon came up.",
                    "They played games until the stars came out.",
                ),
                (
                    "And {H} found that it is even nicer to give than to get.",
                    "The best surprise is made with love.",
                ),
            ),
        ),
        ("gift",),
        tuple((g,) for g in GIFTS),
    ),
    Plot(
        "build",
        ("building {build}", "making something", "working together", "{build}"),
        (
            (
                (
                    "One day, {H} had a big idea. {He} wanted to build {build}.",
                    'One morning, {H} said, "I want to build {build}."',
                ),
                ("{He} took {parts} and began to work.", "{He} gathered {parts} near {spot}."),
                (
                    "It was hard to do it alone.",
                    "{He} worked all morning.",
                    "{He} hummed a song as {he} worked.",
                ),
            ),
            (
                ("But then {trouble}.", "Just when it was almost done, {trouble}."),
                (
                    '"It is no good," said {H}, and sat down on the ground.',
                    '"I will never finish it," said {H}.',
                    "{H} wanted to give up.",
                ),
                ("Then {friend} came to look.", "{Friend} had seen it all and came over."),
                (
                    '"I have an idea," said {F}. "May I help?"',
                    '"Do not give up," said {F}. "Let us try again."',
                ),
                ("They started once more, and this time they {fix}.", "Together they {fix}, and it worked."),
                (
                    "{F} held the parts while {H} put them together.",
                    "They worked side by side until the sun was low.",
                ),
            ),
            (
                ("In the evening, they had built {build}.", "At last {build} stood there, all finished."),
                (
                    '"We did it!" said {H}.',
                    '"It is the best in the whole land," said {F}.',
                    "They looked at it and were very proud.",
                ),
                (
                    "Everyone came to see it.",
                    "That night, they ate {food} to celebrate.",
                ),
                (
                    "{H} had learned to try again.",
                    "Two friends can build what one cannot.",
                    "And {H} already had the next idea.",
                ),
            ),
        ),
        ("build", "parts", "trouble", "fix"),
        BUILDS,
        uses_food=True,
    ),
    Plot(
        "race",
        ("a race", "winning", "running a race", "losing and winning"),
        (
            (
                (
                    "Every year, there was a great race to {spot}.",
                    "One day, there was to be a race to {spot}.",
                ),
                (
                    "{H} wanted to win it more than anything.",
                    '"I will win," said {H}.',
                    "{H} practised every single day.",
                ),
                ("The prize was a {thing}.", "The winner would get a {thing}."),
            ),
            (
                ("The fastest of all was {friend}.", "Next to {him} at the start stood {friend}."),
                ('"Ready, steady, go!" called {an_elder}.', "Then a bell rang, and everyone ran."),
                (
                    "{H} ran as fast as {he} could, but {F} was always in front.",
                    "{H} and {F} ran side by side, faster than the wind.",
                ),
                ("Then, near the end, {F} fell over a root.", "Suddenly, {F} slipped and fell."),
                ('"Ouch, my foot," said {F}.', "{F} could not get up."),
                (
                    "{H} could see the finish line. But {he} stopped and turned back.",
                    "{H} was all alone in front now. But {he} did not run on.",
                ),
                ('"Lean on me," said {H}. "We will go together."', '"Come," said {H}, and helped {F} up.'),
            ),
            (
                (
                    "They crossed the line together, last of all, but everyone cheered.",
                    "Side by side, they walked over the line, and everyone clapped.",
                ),
                (
                    "{Elder} gave them both the {thing}, one week for each.",
                    '"You are both winners today," said {elder}, and gave them the {noun}.',
                ),
                (
                    "{H} did not mind that {he} had not been the first.",
                    "{H} was happier than any winner before.",
                ),
                (
                    "To help a friend is the best way to win.",
                    "A race is over soon, {he} thought, but a friend stays.",
                ),
            ),
        ),
        uses_thing=True,
    ),
    Plot(
        "garden",
        ("a garden", "growing a {flower}", "being patient", "a {flower}"),
        (
            (
                (
                    "One spring day, {an_elder} gave {H} a tiny seed.",
                    "One day, {H} found a small seed near {spot}.",
                ),
                ('"I will grow a {flower}," said {H}.', '"What a fine {flower} this will be," said {H}.'),
                (
                    "{He} put it into the ground and gave it water.",
                    "{He} made a hole in the soft earth and laid the seed inside.",
                ),
            ),
            (
                (
                    "The next morning, nothing had happened.",
                    "{He} looked every hour, but there was only brown earth.",
                ),
                (
                    '"Grow, please grow," said {H}.',
                    '"Maybe it is asleep," said {H}.',
                    "{H} sang a song for it.",
                ),
                ("Days went by, and still there was nothing.", "A whole week went by."),
                (
                    "{H} was about to give up when {friend} came to the fence.",
                    "Then {friend} stopped to see what {H} was doing.",
                ),
                (
                    '"Good things take time," said {F}. "Give it water and wait."',
                    '"Be patient," said {F}. "It is growing where you cannot see it."',
                ),
                ("So {H} waited, and {F} helped {him} to water it.", "So they watered it together each day."),
            ),
            (
                (
                    "Then, one morning, there was a little green leaf.",
                    "One day, a tiny green tip came out of the ground.",
                ),
                (
                    "It grew and grew, and by summer there was a big {flower} plant.",
                    "By the end of summer, the {flower} was the finest in the land.",
                ),
                (
                    '"It was worth the wait," said {H}.',
                    '"We grew it together," said {F}.',
                    "{H} danced around it for joy.",
                ),
                (
                    "{He} kept one seed for the next year and gave one to {F}.",
                    "And {H} gave new seeds to all {his} friends.",
                ),
                (
                    "Good things come to those who wait and care.",
                    "Now there is a whole garden, and everyone is welcome in it.",
                ),
            ),
        ),
        ("flower",),
        tuple((f,) for f in FLOWERS),
    ),
    Plot(
        "song",
        ("music", "singing", "a song", "a {instrument}"),
        (
            (
                (
                    "One day, {H} found an old {instrument} near {spot}.",
                    "On a rainy day, {H} found an old {instrument} in a box.",
                ),
                (
                    "{He} tried to play it, but it made an awful sound.",
                    "{He} tried it at once. What a terrible noise it made!",
                ),
                (
                    '"Please stop," said the neighbours.',
                    "The birds flew away, and the neighbours closed their windows.",
                ),
            ),
            (
                ("{H} was sad and put the {instrument} away.", '"I will never learn it," said {H}.'),
                ("But {friend} had heard {him}.", "Then {friend} knocked at the door."),
                (
                    '"Try it slowly," said {F}, "one note at a time."',
                    '"Nobody can do it on the first day," said {F}. "Try again."',
                ),
                (
                    "So {H} practised every day, a little in the morning and a little at night.",
                    "{H} practised for many days, and {F} tapped the beat.",
                ),
                ("The sounds became softer and sweeter.", "Little by little, the noise turned into music."),
            ),
            (
                (
                    "At the summer feast, {H} played for everyone.",
                    "One evening, {H} played a song by the fire.",
                ),
                ("The neighbours opened their windows and listened.", "Even the birds came back to listen."),
                ('"How beautiful," said {an_elder}.', "When it was over, everybody clapped."),
                ('"You never gave up," said {F}.', "{H} bowed, and {his} face was red with joy."),
                (
                    "Now there is music {home} every evening.",
                    "A little practice every day can do great things.",
                ),
            ),
        ),
        ("instrument",),
        (("flute",), ("drum",), ("violin",), ("trumpet",), ("guitar",), ("piano",), ("harp",), ("horn",)),
    ),
    Plot(
        "honest",
        ("honesty", "telling the truth", "a mistake", "saying sorry"),
        (
            (
                (
                    "{Friend} had a {thing} and was very proud of it.",
                    "One day, {friend} showed {him} a {thing}.",
                ),
                ('"Please be careful with it," said {F}.', '"You may hold it for a while," said {F}.'),
                ("{H} played with it near {spot}.", "{H} took it and turned it around and around."),
                (
                    "Crack! It fell on a stone and broke.",
                    "Then it slipped, fell to the ground, and broke in two.",
                ),
            ),
            (
                (
                    "{H} was so scared that {he} hid it under some leaves.",
                    "Nobody had seen it. {H} hid the parts in a bush.",
                ),
                (
                    '"Where is my {noun}?" asked {F} later.',
                    'In the evening, {F} asked, "Have you seen my {noun}?"',
                ),
                ('"I do not know," said {H}.', "{H} shook {his} head and looked at the ground."),
                ("That night, {H} could not sleep.", "But {H} had a heavy feeling inside and could not eat."),
                ("{He} asked {an_elder} what to do.", "In the morning, {he} told {an_elder} about it."),
                (
                    '"The truth is hard for a minute," said {elder}. "A lie is hard for a long time."',
                    '"Tell the truth," said {elder}, "and your heart will be light again."',
                ),
            ),
            (
                (
                    'So {H} went to {F} and said, "I broke your {noun}. I am very sorry."',
                    '"It was me," said {H} to {F}. "I broke your {noun}, and I am sorry."',
                ),
                ("{F} was quiet for a moment.", "{F} was sad at first."),
                (
                    '"Thank you for telling me," said {F}. "Let us mend it."',
                    '"A {noun} can be mended," said {F}. "I am glad that you told me."',
                ),
                (
                    "They mended it with glue, and it was almost as good as new.",
                    "Together they put the {noun} together again.",
                ),
                (
                    "And {H} felt as light as a feather.",
                    "From then on, {H} always told the truth.",
                    "The truth kept them friends.",
                ),
            ),
        ),
        things=BREAKABLE,
        uses_thing=True,
    ),
    Plot(
        "rescue",
        ("helping others", "kindness", "helping a little bird", "a good deed"),
        (
            (
                ("One day, {he} was walking near {spot}.", "One morning, {he} went out to {spot}."),
                (
                    "There {he} found a little bird on the ground.",
                    "Then {he} heard a weak little peep in the grass. It was a little bird.",
                ),
                ("It had {hurt}.", "The poor bird had {hurt}."),
            ),
            (
                (
                    '"Do not be afraid," said {H}. "I will help you."',
                    '"Poor little bird," said {H}. "I will take you home."',
                ),
                ("But {H} did not know what to do.", "{H} carried it home very carefully."),
                ("So {he} asked {an_elder}.", "Then {he} went to see {an_elder}."),
                (
                    '"Keep it warm," said {elder}, "and give it water and seeds."',
                    '"It needs rest and a soft bed," said {elder}.',
                ),
                (
                    "{H} made a nest of wool and sat by it all night.",
                    "{H} put the bird in a box with soft moss and sang to it.",
                ),
                (
                    "Every day, the bird was a little stronger.",
                    "After a week, the bird could hop and sing again.",
                ),
            ),
            (
                (
                    "Then the day came when the bird wanted to fly.",
                    "One bright morning, {H} opened the window.",
                ),
                (
                    "It flew up, made a circle in the sky, and was gone.",
                    "The bird sang one last song and flew away.",
                ),
                ("{H} was sad and happy at the same time.", "{H} waved for a long time."),
                (
                    "But in spring, the bird came back with a whole family.",
                    "The next morning, the bird sat in front of the house and sang for {H}.",
                ),
                (
                    "A kind deed has wings: it always comes back.",
                    "And from then on, {H} was woken by a song every morning.",
                ),
            ),
        ),
        ("hurt",),
        (("a hurt wing",), ("fallen out of its nest",), ("lost its mother",), ("a thorn in its foot",)),
    ),
    Plot(
        "star",
        ("the stars", "the moon", "a fallen star", "a bedtime", "the night"),
        (
            (
                (
                    "One night, {H} could not sleep and looked out of the window.",
                    "One clear night, {H} lay in the grass and looked up.",
                ),
                (
                    "A small light fell from the sky and landed near {spot}.",
                    "Suddenly, a star fell down behind {spot}.",
                ),
                ("{H} put on a coat and ran to see it.", "{H} took a lantern and went to look."),
            ),
            (
                (
                    "There lay a little star, and it was crying.",
                    "In the grass sat a tiny star, shining softly.",
                ),
                (
                    '"I fell," said the star. "How will I get home?"',
                    '"I want to go home to my family in the sky," said the star.',
                ),
                (
                    "{H} tried to throw it up, but the sky was too high.",
                    "{H} climbed the tallest tree, but the sky was still too far.",
                ),
                ("Then {friend} woke up and came to help.", "The light woke {friend}, who came closer."),
                ('"What if we {plan}?" said {F}.', '"I know," said {F}. "Let us {plan}."'),
                ("They tried it at once.", "It took them half the night."),
            ),
            (
                (
                    "And it worked! The star rose up, higher and higher.",
                    "Up went the little star, over the trees and into the sky.",
                ),
                (
                    '"Thank you," called the star. "I will shine for you."',
                    "The star blinked three times to say thank you.",
                ),
                ("Then {H} and {F} went home to bed.", "{H} yawned and smiled, and soon {he} was asleep."),
                (
                    "Since then, one star shines brighter than the others over the place where they live.",
                    "And every night, {H} says good night to {his} star.",
                ),
            ),
        ),
        ("plan",),
        (
            ("tie it to a kite",),
            ("ask the night wind to carry it",),
            ("sing until the moon comes down",),
            ("put it into a balloon",),
            ("wait for the wild geese and ask them",),
        ),
    ),
    Plot(
        "treasure",
        ("a treasure", "a treasure map", "a mystery", "pirates"),
        (
            (
                (
                    "One day, {H} found an old map inside a {thing}.",
                    "One morning, {H} opened a {thing} and an old map fell out.",
                ),
                (
                    "There was a red cross on it, right by {spot}.",
                    "It showed the way to {spot}, and there was a big red cross.",
                ),
                ('"A treasure!" said {H}.', '"This must be a treasure map," whispered {H}.'),
            ),
            (
                ("{He} asked {friend} to come along.", "{He} showed it to {friend}, who wanted to come too."),
                (
                    "They followed the map over a hill and through a stream.",
                    "They took ten steps to the left and twenty steps to the right.",
                ),
                ("Then they took a spade and began to dig.", "At the red cross, they dug a deep hole."),
                ('"I hit something!" cried {F}.', "Clonk! There was something hard in the ground."),
                (
                    "It was an old box. Slowly, they opened it.",
                    "They pulled out a heavy box and lifted the lid.",
                ),
            ),
            (
                ("Inside, there was no gold. There was {inside}.", "There was no gold in it, only {inside}."),
                (
                    '"{say}" said {F}, and they both laughed.',
                    '{H} looked at it for a long time. "{say}" {he} said.',
                ),
                ("They walked home arm in arm.", "On the way home, they talked about their adventure."),
                (
                    "The real treasure, {he} thought, was the day they had spent together.",
                    "They put the {noun} and the map back for somebody else to find.",
                    "And {H} kept the map, for one never knows.",
                ),
            ),
        ),
        ("inside", "say"),
        (
            ("a letter that said: be kind to each other", "That is a good treasure!"),
            ("a pair of old shoes", "Somebody must be missing these!"),
            ("a bag of seeds", "We can plant a whole garden!"),
            ("a book full of stories", "We can read it every evening!"),
            ("a picture of two friends", "They look just like us!"),
            ("a note that said: you found each other", "What a clever pirate!"),
        ),
        things=HOLLOW,
        uses_thing=True,
    ),
    Plot(
        "winter",
        ("winter", "the snow", "a snowy day", "a cold day"),
        (
            (
                (
                    "One morning, everything was white. It had snowed all night.",
                    "Winter came early, and snow covered the fields.",
                ),
                ("{H} put on a warm hat and ran outside.", "{H} had never seen so much snow."),
                (
                    "{He} made big footprints all the way to {spot}.",
                    "{He} rolled a ball of snow as big as a pumpkin.",
                ),
            ),
            (
                (
                    "There {he} saw {friend}, who was shivering.",
                    "By a white bush stood {friend} and shivered.",
                ),
                ('"I am so cold," said {F}. "I have no {warm}."', '"The wind took my {warm}," said {F}.'),
                ("{H} thought for a moment. Then {he} ran home.", '"Wait here," said {H}, and ran off.'),
                (
                    "{He} came back with {his} own {warm} and gave it to {F}.",
                    "Soon {he} came back with a {warm} made of red wool.",
                ),
                (
                    '"But now you have none," said {F}. "We can take turns," said {H}.',
                    '"It fits!" said {F}, and turned around like a dancer.',
                ),
                (
                    "Then they built a snowman with a funny nose.",
                    "Then they slid down the hill again and again.",
                ),
            ),
            (
                (
                    "When it grew dark, they went inside and shared {food}.",
                    "In the evening, they sat by the fire and had {food}.",
                ),
                (
                    '"I am not cold any more," said {F}, "not even my heart."',
                    '"This was the best day of the winter," said {H}.',
                ),
                (
                    "Outside, the snow fell softly, and everything was quiet.",
                    "The snow fell all night, but they were warm and happy.",
                ),
                (
                    "A warm heart makes even winter warm.",
                    "And when spring came, they were still the best of friends.",
                ),
            ),
        ),
        ("warm",),
        (("scarf",), ("coat",), ("hat",), ("blanket",), ("sweater",)),
        uses_food=True,
    ),
)
